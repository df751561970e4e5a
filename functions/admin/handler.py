"""The operator's API, except for what is about queues, behind API Gateway."""

from minichat.http.admin.app import TABLE, create_admin_app
from minichat.http.gateway import behind_gateway
from minichat.settings import current

handler = behind_gateway(create_admin_app(current(), TABLE))

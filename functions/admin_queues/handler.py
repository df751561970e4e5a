"""The operator's API about dead letters and the deployment's health, behind API Gateway."""

from minichat.http.admin.app import QUEUES, create_admin_app
from minichat.http.gateway import behind_gateway
from minichat.settings import current

handler = behind_gateway(create_admin_app(current(), QUEUES))

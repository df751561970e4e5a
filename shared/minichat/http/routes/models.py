"""Models that may be chosen."""

from fastapi import APIRouter

from minichat.domain import errors
from minichat.domain.identity import Call
from minichat.domain.policy import Policy
from minichat.http.acting import acts
from minichat.http.deps import AppDeps, Authenticated, TheApp, TheCall
from minichat.http.problems import documented
from minichat.http.response_models import ModelList, ModelView, model_view
from minichat.storage import policies

router = APIRouter(tags=["models"], route_class=Authenticated)


@router.get("/models", dependencies=[acts("model:list")], responses=documented())
def list_models(call: TheCall, app: TheApp) -> ModelList:
    """Every model that the caller may choose."""
    return ModelList(items=[model_view(model) for model in _policy(call, app).enabled_models()])


@router.get("/models/{model_id:path}", dependencies=[acts("model:list")], responses=documented(errors.ModelNotFound))
def get_model(call: TheCall, app: TheApp, model_id: str) -> ModelView:
    """One model that the caller may choose; another one does not exist."""
    return model_view(_policy(call, app).model(model_id))


def _policy(call: Call, app: AppDeps) -> Policy:
    layer = policies.layer_of(call.caller.tenant_id, call.caller.user_id)
    return app.rules_of(call.caller).of_user(layer).policy

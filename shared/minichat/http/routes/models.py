"""Models that may be chosen."""

from fastapi import APIRouter

from minichat.domain import errors
from minichat.http.acting import acts
from minichat.http.deps import Authenticated, TheApp, TheCall
from minichat.http.problems import documented
from minichat.http.response_models import ModelList, ModelView, model_view

router = APIRouter(tags=["models"], route_class=Authenticated)


@router.get("/models", dependencies=[acts("model:list")], responses=documented())
async def list_models(call: TheCall, app: TheApp) -> ModelList:
    """Every enabled model of the catalog."""
    del call  # requires a caller, but uses nothing of it
    return ModelList(items=[model_view(model) for model in app.rules.policy.enabled_models()])


@router.get("/models/{model_id:path}", dependencies=[acts("model:list")], responses=documented(errors.ModelNotFound))
async def get_model(call: TheCall, app: TheApp, model_id: str) -> ModelView:
    """One enabled model; a disabled one does not exist."""
    del call
    return model_view(app.rules.policy.model(model_id))

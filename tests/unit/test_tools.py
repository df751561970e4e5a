"""What a model is given of a chat's files: what it supports, nobody switched off, and its own provider has."""

from dataclasses import replace
from typing import Any

import pytest

from minichat.domain import errors
from minichat.domain.admission import Admission, PromptLimits, Wish, admit
from minichat.domain.attachment import Attachment, AttachmentStatus
from minichat.domain.day_counts import DayCounts
from minichat.domain.identity import AttachmentId, ChatId, TenantId
from minichat.domain.policy import KillSwitches, Model, Policy
from minichat.domain.quota_left import Committed, QuotaUse
from minichat.domain.tools import Document, Tools
from tests.support.domain.builders import NOW, a_model, a_policy, an_id, some_limits

ALL_TOOLS = {"tool_support": {"web_search": True, "file_search": True, "code_interpreter": True}}
SEEING = a_model(multimodal_capabilities=["VISION_INPUT"], general_config=ALL_TOOLS)
PREMIUM = a_model(
    id="large", tier="premium", multimodal_capabilities=["VISION_INPUT"], input_tokens_credit_multiplier_micro=10**7
)
LIMITS = PromptLimits(
    max_output_tokens=100,
    web_search_guard="web",
    file_search_guard="files",
    file_providers=frozenset({"openai", "azure"}),
)
QUOTA_USE = QuotaUse(some_limits())
FULL = QuotaUse(some_limits(premium=0))
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PDF = Document(AttachmentId(an_id(1)), "moon.pdf", "application/pdf", "openai", "file-1", "vs-1")
SHEET = Document(AttachmentId(an_id(2)), "moon.xlsx", XLSX, "openai", "file-2", None)
IMAGE = Attachment(
    TenantId(an_id(3)),
    ChatId(an_id(4)),
    AttachmentId(an_id(5)),
    "image",
    "openai",
    provider_file_id="file-3",
    status=AttachmentStatus.READY,
)


def _admitted(
    *models: Model,
    policy: Policy | None = None,
    quota_use: QuotaUse = QUOTA_USE,
    limits: PromptLimits = LIMITS,
    **wish: Any,
) -> Admission:
    selected = models[0].id if models else "small"
    return admit(policy or a_policy(*models), Wish(selected, "x" * 4000, **wish), quota_use, limits, NOW)


def test_documents_are_searched_and_sheets_computed_with() -> None:
    admission = _admitted(SEEING, documents=[PDF, SHEET, replace(PDF, attachment_id=AttachmentId(an_id(9)))])
    assert admission.tools == Tools(vector_stores=("vs-1",), code_files=("file-2",))
    assert admission.assembly.instructions == "files"


@pytest.mark.holds("turns.surcharges")
def test_each_tool_in_play_costs_its_surcharge_and_each_image_its_budget() -> None:
    plain = _admitted(SEEING).reserve.tokens
    assert _admitted(SEEING, documents=[SHEET]).reserve.tokens - plain == 1000
    # The guard text is sent, too: two tokens and the overhead, with the margin.
    searched = _admitted(SEEING, documents=[PDF]).reserve.tokens - plain
    assert searched == 500 + 113
    assert _admitted(SEEING, images=[IMAGE, IMAGE]).reserve.tokens - plain == 2000
    everything = _admitted(SEEING, documents=[PDF, SHEET], images=[IMAGE], web_search=True)
    assert everything.reserve.tokens - plain == 500 + 1000 + 500 + 1000 + 114
    assert everything.assembly.instructions == "web\n\nfiles"
    assert [image.provider_file_id for image in everything.images] == ["file-3"]


def test_what_must_be_sent_has_to_fit_with_images_and_surcharges() -> None:
    # 1210 of the text, 100 of overhead and 100 of the answer, beside two images and the interpreter.
    fits = 1210 + 100 + 100 + 2 * 1000 + 1000
    for window, admitted in ((fits, True), (fits - 1, False)):
        model = SEEING.model_copy(update={"context_window": window})
        if admitted:
            assert _admitted(model, documents=[SHEET], images=[IMAGE, IMAGE]).tools.code_files
        else:
            with pytest.raises(errors.ContextBudgetExceeded):
                _admitted(model, documents=[SHEET], images=[IMAGE, IMAGE])


@pytest.mark.parametrize(
    ("model", "switches", "limits"),
    [
        (a_model(), {}, LIMITS),
        (SEEING, {"disable_file_search": True, "disable_code_interpreter": True}, LIMITS),
        (SEEING.model_copy(update={"provider_id": "azure"}), {}, LIMITS),
        (SEEING, {}, replace(LIMITS, file_providers=frozenset())),
    ],
    ids=["the model cannot", "switched off", "they are at another provider", "the provider has no files any more"],
)
def test_a_tool_that_is_of_no_use_is_not_offered_and_costs_nothing(
    model: Model, switches: dict[str, bool], limits: PromptLimits
) -> None:
    policy = a_policy(model, kill_switches=KillSwitches(**switches))
    admission = _admitted(model, policy=policy, limits=limits, documents=[PDF, SHEET])
    assert not admission.tools.any
    assert admission.assembly.instructions == ""
    assert admission.reserve.tokens == _admitted(model).reserve.tokens


def test_each_switch_takes_one_tool_away() -> None:
    policy = a_policy(SEEING, kill_switches=KillSwitches(disable_file_search=True))
    assert _admitted(policy=policy, documents=[PDF, SHEET]).tools == Tools(code_files=("file-2",))
    policy = a_policy(SEEING, kill_switches=KillSwitches(disable_code_interpreter=True))
    assert _admitted(policy=policy, documents=[PDF, SHEET]).tools == Tools(vector_stores=("vs-1",))


def test_images_that_are_switched_off_are_refused_and_nothing_else_is() -> None:
    policy = a_policy(SEEING, kill_switches=KillSwitches(disable_images=True))
    assert _admitted(policy=policy, documents=[PDF]).tools.vector_stores
    with pytest.raises(errors.ImagesDisabled):
        _admitted(policy=policy, images=[IMAGE])


@pytest.mark.parametrize(
    "model",
    [a_model(), SEEING.model_copy(update={"provider_id": "azure"})],
    ids=["blind", "of another provider"],
)
def test_a_model_that_cannot_see_the_image_refuses_it(model: Model) -> None:
    with pytest.raises(errors.UnsupportedMedia):
        _admitted(model, images=[IMAGE])


def test_a_provider_that_has_no_files_any_more_cannot_show_an_image() -> None:
    with pytest.raises(errors.UnsupportedMedia):
        _admitted(SEEING, limits=replace(LIMITS, file_providers=frozenset({"azure"})), images=[IMAGE])


def test_a_substitute_that_cannot_see_the_image_is_passed_over() -> None:
    blind = a_model(id="blind", preference={"is_default": True})
    assert _admitted(PREMIUM, blind, quota_use=FULL).reserve.effective_model == "blind"
    with pytest.raises(errors.QuotaExceeded) as refusal:
        _admitted(PREMIUM, blind, quota_use=FULL, images=[IMAGE])
    assert refusal.value.limit.scope == "tokens"
    assert _admitted(PREMIUM, SEEING, quota_use=FULL, images=[IMAGE]).reserve.effective_model == "small"


def test_where_only_blind_models_are_left_the_image_is_refused_and_not_the_quota() -> None:
    blind = a_model(id="blind", preference={"is_default": True})
    policy = a_policy(PREMIUM, blind, kill_switches=KillSwitches(force_standard_tier=True))
    with pytest.raises(errors.UnsupportedMedia):
        _admitted(PREMIUM, policy=policy, images=[IMAGE])


def test_where_no_model_is_left_at_all_it_is_the_quota_with_images_too() -> None:
    with pytest.raises(errors.QuotaExceeded):
        _admitted(a_model(enabled=False), images=[IMAGE])


def test_the_tools_are_those_of_the_model_that_runs() -> None:
    supporting = PREMIUM.model_copy(update={"general_config": SEEING.general_config})
    plain = a_model(id="plain", preference={"is_default": True})
    assert _admitted(supporting, plain, documents=[PDF]).tools.vector_stores == ("vs-1",)
    assert not _admitted(supporting, plain, quota_use=FULL, documents=[PDF]).tools.any


def test_the_days_interpreter_calls_count_only_where_it_would_be_offered() -> None:
    used = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(code_interpreter=50)))
    assert _admitted(SEEING, quota_use=used, documents=[PDF]).tools.vector_stores
    assert not _admitted(a_model(), quota_use=used, documents=[SHEET]).tools.any
    with pytest.raises(errors.QuotaExceeded) as refusal:
        _admitted(SEEING, quota_use=used, documents=[SHEET])
    assert refusal.value.limit.scope == "code_interpreter"
    almost = QuotaUse(some_limits(), daily=Committed(counts=DayCounts(code_interpreter=49)))
    assert _admitted(SEEING, quota_use=almost, documents=[SHEET]).tools.code_files


@pytest.mark.parametrize("tools", [Tools(web_search=True), Tools(vector_stores=("vs-1",)), Tools(code_files=("f-1",))])
def test_one_tool_alone_is_something_that_the_model_may_use(tools: Tools) -> None:
    assert tools.any

"""What a message and a turn tell of the answer."""

import pytest

from minichat.http.answer_views import of_message
from tests.support.domain.builders import a_message


def test_an_answer_tells_which_model_made_it_and_which_was_chosen() -> None:
    told = of_message(a_message("Paris.", role="assistant", model="small"))
    assert (told["effective_model"], told["selected_model"], told["quota_decision"]) == ("small", "small", "allow")
    told = of_message(a_message("Paris.", role="assistant", model="small", selected_model="large"))
    assert (told["effective_model"], told["selected_model"], told["quota_decision"]) == ("small", "large", "downgrade")


@pytest.mark.parametrize("role", ["user", "system"])
def test_only_an_answer_tells_of_one(role: str) -> None:
    assert of_message(a_message("Hello", role=role, model="small")) == {}
    assert of_message(a_message("Hello", role="assistant")) == {}

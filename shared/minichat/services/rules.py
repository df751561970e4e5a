"""What every use case goes by: the settings of the deployment and the policy in force."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from minichat.domain.admission import Limits
from minichat.domain.policy import Policy
from minichat.settings import Settings, SettingsError, read_document

SHIPPED_POLICY = Path(__file__).parent.parent / "policies" / "default.json"


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings and policy, both immutable."""

    settings: Settings
    policy: Policy

    @property
    def limits(self) -> Limits:
        """What the deployment allows a prompt."""
        settings = self.settings
        return Limits(
            settings.streaming.max_output_tokens,
            settings.context.web_search_guard,
            settings.quota.web_search_daily_quota,
        )


def rules(settings: Settings) -> Rules:
    """The rules of a deployment, with the policy of its file or the shipped one.

    Raises SettingsError naming the path of each wrong member.
    """
    return Rules(settings, policy_file(settings.policy_file or SHIPPED_POLICY))


def policy_file(path: Path) -> Policy:
    """The policy that a JSON or YAML file describes (turns-and-quota 5).

    Raises SettingsError naming the path of each wrong member, and why it is wrong.
    """
    try:
        return Policy.model_validate(read_document("policy_file", path))
    except ValidationError as error:
        problems = (
            f"{'.'.join(str(part) for part in problem['loc']) or 'policy'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise SettingsError(f"policy_file: {path}\n" + "\n".join(problems)) from None

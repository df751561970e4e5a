"""What CloudFormation makes of a template for certain parameters: conditions decided, what they leave out left out."""

from collections.abc import Mapping
from typing import Any

_PSEUDO = {
    "AWS::Region": "us-east-1",
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::AccountId": "1",
}
_NOTHING = {"Ref": "AWS::NoValue"}


def resolved(template: Mapping[str, Any], **given: str) -> dict[str, dict[str, Any]]:
    """The resources and outputs that are there, by logical id and, of outputs, with `Outputs.` before it.

    Parameters and pseudo parameters are replaced by their values, and `Fn::If` by the branch that is taken. What
    depends on a resource stays as it is.
    """
    declared = {name: str(one.get("Default", name)) for name, one in template.get("Parameters", {}).items()}
    assert given.keys() <= declared.keys()
    deciding = _Deciding(template.get("Conditions", {}), _PSEUDO | declared | given)
    parts = template["Resources"] | {f"Outputs.{name}": one for name, one in template.get("Outputs", {}).items()}
    return {
        name: deciding.of({key: value for key, value in part.items() if key != "Condition"})
        for name, part in parts.items()
        if "Condition" not in part or deciding.holds({"Condition": part["Condition"]})
    }


def rules_broken(template: Mapping[str, Any], **given: str) -> list[str]:
    """What the rules of a template say against parameters."""
    declared = {name: str(one.get("Default", name)) for name, one in template["Parameters"].items()}
    deciding = _Deciding({}, declared | given)
    return [
        assertion["AssertDescription"]
        for rule in template["Rules"].values()
        if "RuleCondition" not in rule or deciding.holds(rule["RuleCondition"])
        for assertion in rule["Assertions"]
        if not deciding.holds(assertion["Assert"])
    ]


class _Deciding:
    def __init__(self, conditions: Mapping[str, Any], values: Mapping[str, str]) -> None:
        self._conditions, self._values = conditions, values

    def holds(self, said: Any) -> bool:
        ((function, arguments),) = said.items()
        match function:
            case "Condition":
                return self.holds(self._conditions[arguments])
            case "Fn::Not":
                return not self.holds(arguments[0])
            case "Fn::And" | "Fn::Or":
                return (all if function == "Fn::And" else any)(map(self.holds, arguments))
            case "Fn::Contains":
                return arguments[1] in self.of(arguments[0]).split(",")
        assert function == "Fn::Equals"
        first, second = (str(self.of(one)) for one in arguments)
        return first == second

    def of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [done for one in value if (done := self.of(one)) != _NOTHING]
        if not isinstance(value, dict):
            return value
        match value:
            case {"Fn::If": [condition, yes, no]}:
                value = self.of(yes if self.holds({"Condition": condition}) else no)
            case {"Ref": name}:
                value = self._values.get(name, value)
            case {"Fn::Sub": str(text)}:
                value = self._substituted(text)
            case {"Fn::Join": [_, {"Ref": _} as several]}:
                value = self.of(several)
            case _:
                value = {key: done for key, one in value.items() if (done := self.of(one)) != _NOTHING}
        return value

    def _substituted(self, text: str) -> str | dict[str, str]:
        for name, one in self._values.items():
            text = text.replace(f"${{{name}}}", one)
        return text if "${" not in text else {"Fn::Sub": text}

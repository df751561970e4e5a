"""The templates, as AWS would get them: linters pass much that only shows after SAM's translation."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from cfnlint.decode import cfn_yaml
from fastapi.routing import APIRoute

from minichat.events.base import Queue
from minichat.events.consume import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from minichat.http.admin.app import QUEUES as QUEUES_PART
from minichat.http.admin.app import TABLE, AdminPart, admin_routers
from minichat.http.app import BUFFERED, STREAMING, ServedPart, routers
from minichat.http.document import Problem
from minichat.http.openai import door
from minichat.settings import Settings, load
from tests.support.aws.resolved import resolved
from tests.support.events.metric_names import emitted
from tests.support.http.gateway import resource_of

ROOT = Path(__file__).parents[2]
SAM = ROOT / ".tools" / "sam" / "bin"
TABLES = cfn_yaml.load(str(ROOT / "infra" / "tables.yaml"))["Resources"]
IDENTITY = cfn_yaml.load(str(ROOT / "infra" / "identity.yaml"))["Resources"]
QUEUES = cfn_yaml.load(str(ROOT / "infra" / "queues.yaml"))
OBSERVABILITY = cfn_yaml.load(str(ROOT / "infra" / "observability.yaml"))
INSTANCES = cfn_yaml.load(str(ROOT / "infra" / "instances.yaml"))["Resources"]
ROOT_TEMPLATE = cfn_yaml.load(str(ROOT / "template.yaml"))

PREFIX = "/mini-chat/v1"
TURN = f"{PREFIX}/chats/{{chat_id}}/turns/{{turn}}"
ANY = "x-amazon-apigateway-any-method"
SUFFIXES = {
    "AWS::SQS::Queue": "Queue",
    "AWS::Serverless::Function": "Function",
    "AWS::Serverless::LayerVersion": "Layer",
    "AWS::DynamoDB::Table": "Table",
    "AWS::IAM::Role": "Role",
    "AWS::Logs::LogGroup": "LogGroup",
    "AWS::SecretsManager::Secret": "Secret",
    "AWS::CloudWatch::Alarm": "Alarm",
    "AWS::CloudWatch::Dashboard": "Dashboard",
}


QUEUE_URL = "https://sqs.ap-southeast-2.amazonaws.com/123456789012/" + "q" * 80
"""As long as one can be: the name that CloudFormation makes is cut at the 80 characters that SQS allows."""
LONG = {
    "AWS::Region": "ap-southeast-2",
    "AWS::StackName": "s" * 64,
    "StreamSeconds": "900",
    "DocsPage": "false",
}


@pytest.fixture(scope="module")
def translated() -> dict[str, Any]:
    """The CloudFormation template that SAM makes of ours."""
    if not SAM.is_dir():
        pytest.skip("the SAM CLI is not installed (`make tools`)")
    output = _output(SAM / "python", ROOT / "tests" / "support" / "aws" / "translate.py", ROOT / "template.yaml")
    template: dict[str, Any] = json.loads(output)
    return template


@pytest.fixture(scope="module")
def functions(translated: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Properties of every function, by logical id."""
    return _of_type(translated, "AWS::Lambda::Function")


@pytest.fixture(scope="module")
def integrations(translated: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """What stands behind each path and method of the API."""
    (api,) = _of_type(translated, "AWS::ApiGateway::RestApi").values()
    return {
        (path, method if method == ANY else method.upper()): operation["x-amazon-apigateway-integration"]
        for path, operations in api["Body"]["paths"].items()
        for method, operation in operations.items()
    }


def test_only_lists_and_who_tells_providers_who_asks_take_the_secret(functions: dict[str, dict[str, Any]]) -> None:
    having = [
        name
        for name, function in functions.items()
        if "resolve:secretsmanager" in json.dumps(function.get("Environment", {}).get("Variables", {}))
    ]
    assert sorted(having) == [
        "AdminFunction",
        "ApiFunction",
        "ChatCleanupFunction",
        "StreamFunction",
        "ThreadSummaryFunction",
    ], "the first and third for that of manifests"


def test_exactly_the_streaming_operations_stream(integrations: dict[tuple[str, str], dict[str, Any]]) -> None:
    streaming = {
        ("POST", f"{PREFIX}/chats/{{chat_id}}/messages:stream"),
        ("POST", TURN),
        ("POST", f"{TURN}/retry"),
        ("PATCH", TURN),
        ("GET", f"{TURN}/stream"),
        (ANY, "/mini-chat/openai/v1/{proxy+}"),
    }
    for (path, method), integration in integrations.items():
        uri = json.dumps(integration["uri"])
        if (method, path) in streaming:
            assert integration["responseTransferMode"] == "STREAM"
            assert "/2021-11-15/" in uri
            assert uri.endswith('/response-streaming-invocations"}')
            streaming.remove((method, path))
        else:
            assert "responseTransferMode" not in integration
            assert uri.endswith('/invocations"}')
    assert not streaming


@pytest.mark.parametrize(("parts", "function"), [(BUFFERED, "ApiFunction"), (STREAMING, "StreamFunction")])
def test_every_operation_reaches_the_function_that_serves_it(
    integrations: dict[tuple[str, str], dict[str, Any]], parts: ServedPart, function: str
) -> None:
    operations = [
        (method, PREFIX + re.sub(r"{\w+(:item)?}", "0b4f", re.sub(r"{\w+:path}", "a/b", route.path)))
        for router in routers(parts)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]
    assert operations
    assert {(method, url): _function_behind(integrations, method, url) for method, url in operations} == dict.fromkeys(
        operations, function
    )


def test_every_operation_for_openais_clients_reaches_the_function_that_streams(
    integrations: dict[tuple[str, str], dict[str, Any]],
) -> None:
    operations = {
        (method, "/mini-chat/openai/v1" + re.sub(r"{\w+(:path)?}", "0b4f", route.path))
        for route in door.router.routes
        if isinstance(route, APIRoute)
        for method in (*(route.methods or ()), "OPTIONS", "PUT")
    }
    assert operations
    assert {_function_behind(integrations, method, url) for method, url in operations} == {"StreamFunction"}


@pytest.mark.parametrize(("parts", "function"), [(TABLE, "AdminFunction"), (QUEUES_PART, "AdminQueuesFunction")])
def test_every_operation_of_operators_reaches_the_function_that_serves_it(
    integrations: dict[tuple[str, str], dict[str, Any]], parts: AdminPart, function: str
) -> None:
    operations = {
        (method, "/mini-chat/admin/v1" + re.sub(r"{\w+}", "0b4f", route.path))
        for router in admin_routers(parts)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in (*(route.methods or ()), "OPTIONS")
    }
    assert operations
    assert {_function_behind(integrations, method, url) for method, url in operations} == {function}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/0b4f",
        "/0b4f/messages",
        "/0b4f/messages:stream",
        "/0b4f/turns",
        "/0b4f/turns/0b4f",
        "/0b4f/turns/0b4f/retry",
        "/0b4f/turns/0b4f/stream",
        "/0b4f/turns/0b4f/other",
        "/0b4f/other",
    ],
)
def test_what_no_operation_serves_is_refused_by_our_own_code(
    integrations: dict[tuple[str, str], dict[str, Any]], path: str
) -> None:
    assert _function_behind(integrations, "PUT", f"{PREFIX}/chats{path}") == "ApiFunction"


def test_what_the_gateway_refuses_by_itself_is_a_problem_document(translated: dict[str, Any]) -> None:
    (api,) = _of_type(translated, "AWS::ApiGateway::RestApi").values()
    responses = api["Body"]["x-amazon-apigateway-gateway-responses"]
    assert responses
    for name, response in responses.items():
        if name == "DEFAULT_4XX":
            continue  # what else it may refuse keeps its status, which no template of ours can tell
        problem = Problem.model_validate_json(response["responseTemplates"]["application/json"])
        assert problem.status == int(response["statusCode"])
        assert problem.type == f"urn:minichat:problem:{problem.code}"
        assert response["responseParameters"]["gatewayresponse.header.Content-Type"] == "'application/problem+json'"


def test_a_page_may_read_what_the_gateway_refuses_where_pages_may_call(translated: dict[str, Any]) -> None:
    (api,) = _of_type(translated, "AWS::ApiGateway::RestApi").values()
    responses = api["Body"]["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX", "THROTTLED"} <= responses.keys()
    header = "gatewayresponse.header.Access-Control-Allow-Origin"
    for response in responses.values():
        assert response["responseParameters"][header] == {"Fn::If": ["AllowsOrigins", "'*'", {"Ref": "AWS::NoValue"}]}
    exposed = responses["THROTTLED"]["responseParameters"]["gatewayresponse.header.Access-Control-Expose-Headers"]
    assert exposed["Fn::If"][1] == "'Retry-After'"
    assert "Allow-Credentials" not in json.dumps(translated)
    assert ROOT_TEMPLATE["Parameters"]["CorsOrigins"]["Default"] == ""


def test_preflights_of_all_operations_reach_a_function_that_knows_the_origins(
    integrations: dict[tuple[str, str], dict[str, Any]], functions: dict[str, dict[str, Any]]
) -> None:
    paths = {
        PREFIX + re.sub(r"{\w+(:item)?}", "0b4f", re.sub(r"{\w+:path}", "a/b", route.path))
        for router in routers(BUFFERED | STREAMING)
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    assert {_function_behind(integrations, "OPTIONS", path) for path in paths} == {"ApiFunction"}
    for name in ("ApiFunction", "StreamFunction"):
        variables = functions[name]["Environment"]["Variables"]
        assert variables["MINICHAT_CORS__ALLOWED_ORIGINS"] == {"Fn::Join": [",", {"Ref": "CorsOrigins"}]}


def test_a_function_is_found_by_its_name(functions: dict[str, dict[str, Any]]) -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/handler.py")}
    assert {_snake(name.removesuffix("Function")) for name in functions} == folders
    for name, properties in functions.items():
        module, _, attribute = properties["Handler"].rpartition(".")
        assert module == f"functions.{_snake(name.removesuffix('Function'))}.handler"
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        assert re.search(rf"^({attribute} = |(async )?def {attribute}\()", source, re.MULTILINE)


def test_every_function_is_bounded_and_logs_into_its_own_group(
    translated: dict[str, Any], functions: dict[str, dict[str, Any]]
) -> None:
    groups = _of_type(translated, "AWS::Logs::LogGroup")
    for name, properties in functions.items():
        group = f"{name.removesuffix('Function')}LogGroup"
        assert properties["LoggingConfig"]["LogGroup"] == {"Ref": group}
        assert properties["LoggingConfig"]["LogFormat"] == "JSON"
        assert groups[group]["RetentionInDays"]
        assert min(_either(properties["MemorySize"])) >= {"ApiFunction": 1024, "StreamFunction": 256}.get(name, 512)
        assert all(seconds <= 900 for seconds in _allowed(properties["Timeout"]))


def test_the_settings_of_every_function_are_real_ones(functions: dict[str, dict[str, Any]]) -> None:
    for properties in functions.values():
        settings = _settings(properties)
        assert settings.auth.jwks == "sample"
        assert settings.metrics_namespace == "MiniChat/sample"
        assert settings.store.endpoint is None
        if properties["Environment"]["Variables"]["MINICHAT_PROVIDERS"] == {"Ref": "AWS::NoValue"}:
            continue
        (provider,) = settings.providers.values()
        assert provider.base_url == "https://sample"
        assert provider.auth is not None
        assert provider.auth.secret.source == "secretsmanager"


def test_the_variables_of_every_function_fit_into_four_kilobytes(functions: dict[str, dict[str, Any]]) -> None:
    # AWS Lambda quotas: 4 KB for all variables of a function together, names included.
    sizes = {
        name: sum(
            len(variable) + len(_longest(value)) for variable, value in properties["Environment"]["Variables"].items()
        )
        for name, properties in functions.items()
    }
    assert max(sizes.values()) <= 4096, sizes


def test_an_answer_ends_before_its_function_does(
    functions: dict[str, dict[str, Any]], integrations: dict[tuple[str, str], dict[str, Any]]
) -> None:
    (limit,) = {json.dumps(i["timeoutInMillis"]) for i in integrations.values() if "responseTransferMode" in i}
    assert json.loads(limit) == {"Fn::FindInMap": ["StreamTime", {"Ref": "StreamSeconds"}, "Milliseconds"]}
    function = functions["StreamFunction"]
    assert function["Timeout"] == {"Ref": "StreamSeconds"}
    assert function["Environment"]["Variables"]["MINICHAT_STREAMING__DEADLINE_SECONDS"] == {"Ref": "StreamSeconds"}
    milliseconds = ROOT_TEMPLATE["Mappings"]["StreamTime"]
    assert {name: row["Milliseconds"] for name, row in milliseconds.items()} == {
        str(seconds): seconds * 1000 for seconds in _allowed({"Ref": "StreamSeconds"})
    }


@pytest.mark.parametrize("name", ["ApiFunction", "StreamFunction"])
def test_what_somebody_waits_for_starts_from_a_snapshot_and_with_its_settings(
    translated: dict[str, Any], name: str
) -> None:
    there = resolved(translated)
    assert there[name]["Properties"]["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    instances = resolved(translated, Compute="managed-instances")
    assert "SnapStart" not in instances[name]["Properties"], "they know no cold start"
    # Or a changed variable would reach no version, and so no caller.
    assert ROOT_TEMPLATE["Resources"][name]["Properties"]["AutoPublishAliasAllProperties"] is True
    assert _of_type(translated, "AWS::Lambda::Alias")[f"{name}Aliaslive"]["Name"] == "live"


@pytest.fixture(scope="module")
def on_instances(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SAM makes of the template that is built for managed instances."""
    if not SAM.is_dir():
        pytest.skip("the SAM CLI is not installed (`make tools`)")
    path = tmp_path_factory.mktemp("built") / "template.yaml"
    shutil.copy(ROOT / "template.yaml", path)
    _output(SAM / "python", ROOT / "infra" / "on_instances.py", path)
    template: dict[str, Any] = json.loads(
        _output(SAM / "python", ROOT / "tests" / "support" / "aws" / "translate.py", path)
    )
    return template


def test_what_somebody_waits_for_and_nothing_else_can_be_put_on_instances(
    functions: dict[str, dict[str, Any]], on_instances: dict[str, Any]
) -> None:
    placed = {
        name: function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
        for name, function in _of_type(on_instances, "AWS::Lambda::Function").items()
        if "CapacityProviderConfig" in function
    }
    assert set(placed) == {"ApiFunction", "StreamFunction"}
    assert not any("CapacityProviderConfig" in function for function in functions.values())
    for name, place in placed.items():
        assert place["CapacityProviderArn"] == {"Fn::GetAtt": ["Instances", "Outputs.CapacityProviderArn"]}
        memory, _ = _either(functions[name]["MemorySize"])
        # One vCPU: what one event loop can use. AWS takes no environment of less than 2 GB.
        assert memory == 1024 * place["ExecutionEnvironmentMemoryGiBPerVCpu"] >= 2048
        assert functions[name].keys().isdisjoint({"VpcConfig", "ProvisionedConcurrencyConfig"})
    assert placed["StreamFunction"]["PerExecutionEnvironmentMaxConcurrency"] == {"Ref": "StreamsPerEnvironment"}


def test_on_instances_only_what_is_placed_there_differs(
    translated: dict[str, Any], on_instances: dict[str, Any]
) -> None:
    # A version is named after what its function is.
    named = {"AWS::Lambda::Version", "AWS::Lambda::Alias"}
    ours, theirs = (
        {name: r.get("Properties") for name, r in template["Resources"].items() if r["Type"] not in named}
        for template in (translated, on_instances)
    )
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differing == {"ApiFunction", "StreamFunction"}
    # A version on instances is paid for while it is there.
    versions = {r["DeletionPolicy"] for r in on_instances["Resources"].values() if r["Type"] == "AWS::Lambda::Version"}
    assert versions == {"Delete"}


def test_a_stack_is_deployed_as_it_was_built(translated: dict[str, Any], on_instances: dict[str, Any]) -> None:
    allowed = ROOT_TEMPLATE["Parameters"]["Compute"]["AllowedValues"]
    for template, compute in ((translated, "lambda"), (on_instances, "managed-instances")):
        (assertion,) = template["Rules"]["BuiltForIt"]["Assertions"]
        assert assertion["Assert"] == {"Fn::Equals": [{"Ref": "Compute"}, compute]}
        assert compute in allowed
    assert ROOT_TEMPLATE["Parameters"]["Compute"]["Default"] == "lambda"
    assert ROOT_TEMPLATE["Resources"]["Instances"]["Condition"] == "OnInstances"


def test_instances_are_run_by_lambda_alone() -> None:
    role = INSTANCES["OperatorRole"]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert (statement["Principal"], statement["Action"]) == ({"Service": "lambda.amazonaws.com"}, "sts:AssumeRole")
    assert [arn["Fn::Sub"].rpartition("/")[2] for arn in role["ManagedPolicyArns"]] == [
        "AWSLambdaManagedEC2ResourceOperator"
    ]
    assert "Policies" not in role


def test_a_linter_that_knows_capacity_providers_finds_nothing_wrong(
    on_instances: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "on-instances.json").write_text(json.dumps(on_instances), encoding="utf-8")
    lint = (Path(sys.executable).parent / "cfn-lint", "--regions", "us-east-1", "--template")
    # Only W1001 is passed over, and only of the two functions: they name a stack that is there on a condition, and are
    # put onto it at a build for which that condition is true.
    assert _output(*lint, tmp_path / "on-instances.json") == ""
    ignored = {
        name: resource["Metadata"]["cfn-lint"]["config"]["ignore_checks"]
        for name, resource in ROOT_TEMPLATE["Resources"].items()
        if "cfn-lint" in resource.get("Metadata", {})
    }
    assert ignored == {"ApiFunction": ["W1001"], "StreamFunction": ["W1001"]}
    # It does know them: what is wrong is found.
    broken = json.loads(json.dumps(on_instances))
    config = broken["Resources"]["StreamFunction"]["Properties"]["CapacityProviderConfig"]
    config["LambdaManagedInstancesCapacityProviderConfig"]["PerExecutionEnvironmentMaxConcurrency"] = 1601
    (tmp_path / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
    found = subprocess.run(
        [*map(str, lint), str(tmp_path / "broken.json")], capture_output=True, text=True, check=False
    )
    assert "1601" in found.stdout


def test_tables_are_on_demand_encrypted_restorable_and_forget_what_expires() -> None:
    tables = {name: table for name, table in TABLES.items() if table["Type"] == "AWS::DynamoDB::Table"}
    assert set(tables) == {"ConversationTable", "OutboxTable"}
    for table in tables.values():
        properties = table["Properties"]
        assert properties["BillingMode"] == "PAY_PER_REQUEST"
        assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert properties["SSESpecification"]["SSEEnabled"] is True
        assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
        assert properties["DeletionProtectionEnabled"] == {"Fn::If": ["IsDisposable", False, True]}
        assert table["DeletionPolicy"] == "RetainExceptOnCreate"
        assert table["UpdateReplacePolicy"] == "Retain"
        assert "TableName" not in properties
    assert tables["OutboxTable"]["Properties"]["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_every_queue_is_encrypted_and_has_somewhere_for_what_fails() -> None:
    queues = {name: q["Properties"] for name, q in QUEUES["Resources"].items() if q["Type"] == "AWS::SQS::Queue"}
    working = {name for name in queues if not name.endswith("DeadLetterQueue")}
    assert working == {
        f"{name}Queue"
        for name in (
            *("Audit", "Usage", "AttachmentCleanup", "AttachmentIngest", "ChatCleanup", "ThreadSummary"),
            *("Export", "Webhook"),
        )
    }
    for name, queue in queues.items():
        assert queue["SqsManagedSseEnabled"] == {"Fn::If": ["UsesOwnKey", False, True]}
        assert queue["MaximumMessageSize"] == 1_048_576  # more than an outbox item can hold
        if name in working:
            dead_letters = name.replace("Queue", "DeadLetterQueue")
            assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead_letters, "Arn"]}
            assert queue.get("FifoQueue") == queues[dead_letters].get("FifoQueue")
        else:
            assert queue["MessageRetentionPeriod"] == 14 * 86_400
    assert {name for name, queue in queues.items() if queue.get("FifoQueue") and name in working} == {
        "ChatCleanupQueue",
        "ThreadSummaryQueue",
    }
    policies = [r["Properties"] for r in QUEUES["Resources"].values() if r["Type"] == "AWS::SQS::QueuePolicy"]
    # The last of two policies of a queue would replace the first.
    assert sorted(queue["Ref"] for policy in policies for queue in policy["Queues"]) == sorted(queues)
    for policy in policies:
        denial = policy["PolicyDocument"]["Statement"][0]
        assert (denial["Effect"], denial["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_a_provider_may_fail_for_hours_before_a_cleanup_is_given_up() -> None:
    attempts = Settings().cleanup.max_attempts
    # Half of each pause is jitter. The last attempt ends it, so that no pause comes after it.
    pauses = [min(FIRST_PAUSE_SECONDS * 2**number, LONGEST_PAUSE_SECONDS) / 2 for number in range(attempts - 1)]
    assert sum(pauses) > 6 * 3600
    for name in ("AttachmentCleanupQueue", "ChatCleanupQueue"):
        properties = QUEUES["Resources"][name]["Properties"]
        assert properties["RedrivePolicy"]["maxReceiveCount"] > attempts
        assert properties["MessageRetentionPeriod"] > 2 * sum(pauses)


def test_settings_name_every_queue_that_an_event_goes_to() -> None:
    urls = json.loads(QUEUES["Outputs"]["Urls"]["Value"]["Fn::Sub"])
    dead_letters = json.loads(QUEUES["Outputs"]["DeadLetterUrls"]["Value"]["Fn::Sub"])
    assert set(urls) == {*get_args(Queue), "webhook"}
    assert set(dead_letters) == {*urls, "outbox-relay", "export"}
    assert {_snake(url.strip("${}").removesuffix("Queue")).replace("_", "-") for url in urls.values()} == set(urls)


def test_a_consumer_knows_its_own_queue_and_the_relay_and_operators_all(functions: dict[str, dict[str, Any]]) -> None:
    for name, properties in functions.items():
        queues, own = _settings(properties).queues, _snake(name.removesuffix("Function")).replace("_", "-")
        if own in {*get_args(Queue), "webhook"}:
            assert (set(queues.urls), set(queues.dead_letters)) == ({own}, {own})
            logical_id = _camel(own)
            assert queues.urls[own] == f"${{{logical_id}Queue}}"
            assert queues.dead_letters[own] == f"${{{logical_id}DeadLetterQueue}}"
        elif own in {"outbox-relay", "admin-queues"}:
            every = {*get_args(Queue), "webhook"}
            assert (set(queues.urls), set(queues.dead_letters)) == (every, {*every, "export", "outbox-relay"})
        elif own == "event-export":
            assert (set(queues.urls), set(queues.dead_letters)) == ({"webhook"}, {"webhook"})
        else:
            assert (queues.urls, queues.dead_letters) == ({}, {})


def test_what_a_schedule_starts_is_not_tried_again_by_anybody(translated: dict[str, Any]) -> None:
    schedules = _of_type(translated, "AWS::Scheduler::Schedule")
    assert len(schedules) == 2
    for schedule in schedules.values():
        assert schedule["Target"]["RetryPolicy"] == {"MaximumRetryAttempts": 0}
    configured = _of_type(translated, "AWS::Lambda::EventInvokeConfig").values()
    called = sorted(json.dumps(schedule["Target"]["Arn"]) for schedule in schedules.values())
    assert [one["MaximumRetryAttempts"] for one in configured] == [0, 0]
    assert sorted(json.dumps({"Fn::GetAtt": [one["FunctionName"]["Ref"], "Arn"]}) for one in configured) == called


def test_sources_retry_what_failed_and_nothing_else(translated: dict[str, Any]) -> None:
    mappings = _of_type(translated, "AWS::Lambda::EventSourceMapping")
    functions = _of_type(translated, "AWS::Lambda::Function")
    assert set(mappings) == {
        "OutboxRelayFunctionOutbox",
        "EventExportFunctionOutbox",
        "WebhookFunctionQueue",
        *(
            f"{name}FunctionQueue"
            for name in ("Audit", "Usage", "AttachmentCleanup", "AttachmentIngest", "ChatCleanup", "ThreadSummary")
        ),
    }
    for mapping in mappings.values():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    for reader, dead_letters in (("OutboxRelay", "OutboxRelay"), ("EventExport", "Export")):
        reading = mappings.pop(f"{reader}FunctionOutbox")
        assert reading["BisectBatchOnFunctionError"] is True
        assert 0 < reading["MaximumRetryAttempts"] < 100
        assert f"{dead_letters}DeadLetterQueueArn" in json.dumps(reading["DestinationConfig"]["OnFailure"])
        assert json.loads(reading["FilterCriteria"]["Filters"][0]["Pattern"]) == {"eventName": ["INSERT"]}
    for name, mapping in mappings.items():
        queue = mapping["EventSourceArn"]["Fn::GetAtt"][1].removeprefix("Outputs.").removesuffix("Arn")
        timeout = functions[name.removesuffix("Queue")]["Timeout"]
        # AWS: six times the function's timeout, or messages come back while they are being handled.
        assert QUEUES["Resources"][queue]["Properties"]["VisibilityTimeout"] >= 6 * timeout


def test_indexes_hold_keys_alone() -> None:
    indexes = TABLES["ConversationTable"]["Properties"]["GlobalSecondaryIndexes"]
    assert {index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]] for index in indexes} == {
        "ByOwner": ["owner", "listed_at"],
        "Running": ["running_shard", "started_at"],
        "Temporary": ["temporary_shard", "ends_at"],
    }
    assert all(index["Projection"] == {"ProjectionType": "KEYS_ONLY"} for index in indexes)


def test_no_permission_is_wider_than_its_use(translated: dict[str, Any]) -> None:
    made_by_sam = {name: r for name, r in translated["Resources"].items() if r["Type"].startswith("AWS::IAM::")}
    # EventBridge Scheduler calls a function as a role of its own, which may do that and nothing else.
    scheduled = {"OrphanWatchdogFunction": "EveryMinute", "ReconcileFunction": "EveryDay"}
    assert set(made_by_sam) == {f"{function}{schedule}Role" for function, schedule in scheduled.items()}
    for function, schedule in scheduled.items():
        (policy,) = made_by_sam[f"{function}{schedule}Role"]["Properties"]["Policies"]
        assert policy["PolicyDocument"]["Statement"] == [
            {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": {"Fn::GetAtt": [function, "Arn"]}}
        ]
    statements = list(_statements())
    assert statements
    for _, statement in statements:
        assert statement["Effect"] == "Allow"
        assert "*" not in json.dumps(statement["Action"])
        # Objects have names of their own.
        resource = json.dumps(statement["Resource"])
        exports = "${UploadsBucketArn}/*/exports/*"
        for own in ("${AuditBucketArn}/*", exports, "${UploadsBucketArn}/*", "${WebhookSecretPrefix}*"):
            resource = resource.replace(own, "")
        assert "*" not in resource


def test_only_functions_that_call_a_provider_can_read_its_key() -> None:
    readers = {role for role, statement in _statements() if "secretsmanager" in json.dumps(statement["Action"])}
    assert readers == {
        "StreamRole",
        "AttachmentCleanupRole",
        "AttachmentIngestRole",
        "ChatCleanupRole",
        "ThreadSummaryRole",
        "WebhookRole",  # the keys of signatures alone
    }


def test_bedrock_and_parameters_are_open_only_to_functions_that_call_a_provider_and_only_on_demand() -> None:
    granted = {
        name: (
            {role["Ref"] for role in resource["Properties"]["Roles"]},
            resource["Properties"]["PolicyDocument"]["Statement"][0]["Action"],
            resource.get("Condition"),
        )
        for name, resource in IDENTITY.items()
        if resource["Type"] == "AWS::IAM::Policy"
        and name not in {"PolicyIsReadOnly", "PolicyIsOnlyErased"}
        # tests/unit/test_template_options.py
        and resource.get("Condition") != "UsesOwnKey"
    }
    models = {"StreamRole", "ThreadSummaryRole"}
    files = {"AttachmentCleanupRole", "AttachmentIngestRole", "ChatCleanupRole"}
    assert granted == {
        "BedrockModels": (models, "bedrock:InvokeModelWithResponseStream", "UsesBedrock"),
        "ProviderParameters": (models | files, "ssm:GetParameter", "UsesParameters"),
        "ProviderSecrets": (models | files, ["secretsmanager:GetSecretValue", "ssm:GetParameter"], None),
        "ProviderSecretsKey": (models | files, "kms:Decrypt", "UsesProviderKey"),
    }


def test_only_who_takes_messages_back_may_delete_items_of_a_tenant() -> None:
    deleting = {role for role, s in _statements() if "dynamodb:DeleteItem" in s["Action"] and "Condition" not in s}
    assert deleting == {"ApiRole", "StreamRole", "ChatCleanupRole"}, "the last erases"


def test_the_audit_trail_can_only_be_added_to() -> None:
    allowed = [(role, s["Action"]) for role, s in _statements() if "AuditBucket" in json.dumps(s["Resource"])]
    assert allowed == [("AuditRole", "s3:PutObject")]
    bucket = ROOT_TEMPLATE["Resources"]["AuditBucket"]
    assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}


FILES = "${UploadsBucketArn}/*"


def test_files_wait_encrypted_unseen_and_no_longer_than_their_events() -> None:
    bucket = ROOT_TEMPLATE["Resources"]["UploadsBucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    dead_letters = QUEUES["Resources"]["AttachmentIngestDeadLetterQueue"]["Properties"]
    days = dead_letters["MessageRetentionPeriod"] // 86_400
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", days + 1)
    (told,) = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert told["Queue"]["Fn::GetAtt"][1] == "Outputs.AttachmentIngestQueueArn"
    allowed = {(role, str(s["Action"])) for role, s in _statements() if s["Resource"] == {"Fn::Sub": FILES}}
    assert allowed == {
        ("ApiRole", "s3:PutObject"),
        ("AttachmentIngestRole", "['s3:DeleteObject', 's3:GetObject']"),
        ("ChatCleanupRole", "s3:DeleteObject"),
    }


def test_exports_are_written_by_one_function_and_read_with_links_of_two() -> None:
    exports = {"Fn::Sub": FILES.replace("*", "*/exports/*")}
    allowed = {(role, str(s["Action"])) for role, s in _statements() if s["Resource"] == exports}
    assert allowed == {
        ("ApiRole", "s3:GetObject"),
        ("AdminRole", "s3:GetObject"),
        ("ChatCleanupRole", "s3:PutObject"),
    }
    (listing,) = (s for role, s in _statements() if (role, s["Action"]) == ("ChatCleanupRole", "s3:ListBucket"))
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "*/exports/*"}}


def test_a_file_reaches_the_function_as_bytes(translated: dict[str, Any]) -> None:
    (api,) = _of_type(translated, "AWS::ApiGateway::RestApi").values()
    assert api["Body"]["x-amazon-apigateway-binary-media-types"] == ["multipart/form-data"]


def test_no_function_but_that_of_the_operators_api_can_write_the_policy() -> None:
    denial = IDENTITY["PolicyIsReadOnly"]["Properties"]
    functions = {name for name, role in IDENTITY.items() if "lambda.amazonaws.com" in json.dumps(role)}
    assert {role["Ref"] for role in denial["Roles"]} == functions - {"AdminRole", "ChatCleanupRole"}
    (statement,) = denial["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {
        "ForAnyValue:StringLike": {"dynamodb:LeadingKeys": ["POLICY", "T#*#P#POLICY", "PROVIDERS", "T#*#P#PROVIDERS"]}
    }


def test_who_erases_tenants_removes_their_policies_and_publishes_none() -> None:
    denial = IDENTITY["PolicyIsOnlyErased"]["Properties"]
    assert denial["Roles"] == [{"Ref": "ChatCleanupRole"}]
    everything, publishing = denial["PolicyDocument"]["Statement"]
    assert (everything["Effect"], publishing["Effect"]) == ("Deny", "Deny")
    assert everything["Condition"] == {"ForAnyValue:StringLike": {"dynamodb:LeadingKeys": ["POLICY", "PROVIDERS"]}}
    assert publishing["Action"] == "dynamodb:PutItem"
    assert publishing["Condition"] == {
        "ForAnyValue:StringLike": {"dynamodb:LeadingKeys": ["T#*#P#POLICY", "T#*#P#PROVIDERS"]}
    }


def test_the_function_of_the_operators_api_writes_only_what_administrators_change() -> None:
    writing = {
        action: statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys")
        for role, statement in _statements()
        if role == "AdminRole" and "ConversationTableArn" in json.dumps(statement["Resource"])
        for action in [statement["Action"]]
        if not isinstance(action, list)
    }
    policies = ["POLICY", "PROVIDERS", "T#*#P#POLICY", "T#*#P#PROVIDERS", "T#*#U#*", "T#*#AUTHORIZATION"]
    assert writing == {
        "dynamodb:Query": None,
        "dynamodb:ConditionCheckItem": None,
        "dynamodb:PutItem": [*policies, "T#*#GRANTS", "T#*#APIKEY", "T#*#ERASE", "T#*#EXPORT", "T#*#STOPPED"],
        "dynamodb:UpdateItem": [*policies, "T#*#APIKEY", "T#*#C#*"],
        "dynamodb:DeleteItem": ["T#*#GRANTS"],
    }


def test_aws_policies_are_used_where_a_service_demands_one() -> None:
    managed = {name: role["Properties"].get("ManagedPolicyArns") for name, role in IDENTITY.items()}
    assert [name for name, arns in managed.items() if arns] == ["GatewayLogRole"]


def test_alarms_and_dashboard_look_where_the_code_writes() -> None:
    watched = ROOT_TEMPLATE["Resources"]["Observability"]["Properties"]["Parameters"]
    variables = ROOT_TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert watched["MetricsNamespace"] == variables["MINICHAT_METRICS_NAMESPACE"]
    assert watched["ApiStage"] == ROOT_TEMPLATE["Resources"]["Api"]["Properties"]["StageName"]


def test_the_api_has_the_name_that_alarms_know(translated: dict[str, Any]) -> None:
    (api,) = _of_type(translated, "AWS::ApiGateway::RestApi").values()
    watched = ROOT_TEMPLATE["Resources"]["Observability"]["Properties"]["Parameters"]
    assert watched["ApiName"] == api["Body"]["info"]["title"] == {"Ref": "AWS::StackName"}


def test_every_function_is_watched() -> None:
    functions = {
        name: resource for name, resource in ROOT_TEMPLATE["Resources"].items() if resource["Type"].endswith("Function")
    }
    watched = ROOT_TEMPLATE["Resources"]["Observability"]["Properties"]["Parameters"]
    assert functions
    for name, function in functions.items():
        if (condition := function.get("Condition")) is None:
            assert watched[f"{name}Name"] == {"Ref": name}
        else:
            assert watched[f"{name}Name"] == {"Fn::If": [condition, {"Ref": name}, "none"]}


def test_alarms_name_metrics_that_the_code_emits() -> None:
    known = emitted()
    named = {
        metric["MetricName"]
        for alarm in _alarms().values()
        for metric in _metrics_of(alarm)
        if metric["Namespace"] == {"Ref": "MetricsNamespace"}
    }
    assert {"stream_failed_total", "ttft_ms", "orphan_detected_total", "transaction_conflict_total"} <= named
    assert named <= known.keys()


def test_no_alarm_adds_up_more_metrics_than_cloudwatch_takes() -> None:
    # PutMetricAlarm: as many as ten structures that retrieve a metric; linters do not count.
    assert all(len(_metrics_of(alarm)) <= 10 for alarm in _alarms().values())


def test_every_function_is_in_an_alarm_of_errors_and_of_throttles() -> None:
    functions = {name for name in ROOT_TEMPLATE["Resources"] if name.endswith("Function")}
    for metric in ("Errors", "Throttles"):
        watched = {
            one["Dimensions"][0]["Value"]["Ref"].removesuffix("Name")
            for alarm in _alarms().values()
            for one in _metrics_of(alarm)
            if one["MetricName"] == metric and one["Namespace"] == "AWS/Lambda"
        }
        assert watched == functions


def test_the_dashboard_shows_every_metric_by_its_own_dimensions() -> None:
    known = emitted()
    shown: set[str] = set()
    for widget in _dashboard()["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            if metric[0] == "MetricsNamespace":
                shown.add(metric[1])
            elif isinstance(metric[0], dict) and "SEARCH" in metric[0]["expression"]:
                search = re.fullmatch(
                    r"""SEARCH\('{"MetricsNamespace",([\w,]+)} MetricName="(\w+)"', '(Sum|p99)', 300\)""",
                    metric[0]["expression"],
                )
                assert search is not None, metric
                assert set(search[1].split(",")) == known[search[2]], search[2]
                shown.add(search[2])
    assert shown == known.keys()


def test_every_alarm_tells_the_topic_and_is_in_the_operators_guide() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = {"Fn::If": ["TellsSomebody", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    for name, alarm in _alarms().items():
        assert alarm["Properties"]["AlarmActions"] == alarm["Properties"]["OKActions"] == told
        assert f"| {name.removesuffix('Alarm')} |" in guide
        expressions = " ".join(m.get("Expression", "") for m in alarm["Properties"].get("Metrics", []))
        ids = {m["Id"] for m in alarm["Properties"].get("Metrics", []) if "MetricStat" in m}
        assert ids <= set(re.findall(r"\w+", expressions))


def test_logical_ids_say_what_they_name() -> None:
    nested = {**TABLES, **IDENTITY, **QUEUES["Resources"], **OBSERVABILITY["Resources"]}
    resources = {**ROOT_TEMPLATE["Resources"], **nested}
    for name, resource in resources.items():
        assert re.fullmatch(r"([A-Z][a-z]+)+", name)
        assert name.endswith(SUFFIXES.get(resource["Type"], ""))


def _of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {name: r["Properties"] for name, r in template["Resources"].items() if r["Type"] == kind}


def _alarms() -> dict[str, dict[str, Any]]:
    return {name: r for name, r in OBSERVABILITY["Resources"].items() if r["Type"] == "AWS::CloudWatch::Alarm"}


def _metrics_of(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    properties = alarm["Properties"]
    if "Metrics" not in properties:
        return [properties]
    return [metric["MetricStat"]["Metric"] for metric in properties["Metrics"] if "MetricStat" in metric]


def _dashboard() -> dict[str, Any]:
    """The dashboard with every parameter's name as its value."""
    _, parts = OBSERVABILITY["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Join"]
    text = "".join(part if isinstance(part, str) else part["Fn::Sub"] for part in parts)
    dashboard: dict[str, Any] = json.loads(re.sub(r"\${([\w:]+)}", r"\1", text))
    return dashboard


def _statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, role in IDENTITY.items():
        for policy in role["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement


def _settings(function: dict[str, Any]) -> Settings:
    """The settings that a function would start with, were every parameter without a default `sample`."""
    variables = function["Environment"]["Variables"]
    said = {name: value for name, value in variables.items() if value != {"Ref": "AWS::NoValue"}}
    return load({name: _sample(value) for name, value in said.items() if name.startswith("MINICHAT_")})


def _sample(value: Any) -> str:
    if isinstance(value, dict) and value.get("Fn::If", [""])[0] == "HidesConsole":
        value = value["Fn::If"][1]
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("Fn::If", [""])[0] == "NamesProviders":
        value = value["Fn::If"][2]
    if isinstance(value, dict) and "Fn::Sub" in value:
        text = value["Fn::Sub"].replace("${ProviderBaseUrl}", "https://sample")
        # A dynamic reference is text to us, and a secret to the function.
        resolved = re.sub(r"{{resolve:secretsmanager:\${(Cursor|Manifest)Secret}}}", "sample", text)
        return re.sub(r"\${[\w:]+}", "sample", resolved)
    if isinstance(value, dict) and value.get("Ref") in {
        "StreamSeconds",
        "StoreEndpoint",
        "AuditContent",
        "DocsPage",
        "JwtSettings",
        "Webhooks",
    }:
        return str(ROOT_TEMPLATE["Parameters"][value["Ref"]]["Default"])
    if isinstance(value, dict) and "Fn::Join" in value:
        separator, parameter = value["Fn::Join"]
        return str(separator.join(filter(None, [ROOT_TEMPLATE["Parameters"][parameter["Ref"]]["Default"]])))
    if isinstance(value, dict) and "Queues" in value.get("Fn::GetAtt", []):
        return str(QUEUES["Outputs"][value["Fn::GetAtt"][1].removeprefix("Outputs.")]["Value"]["Fn::Sub"])
    return "sample"


def _longest(value: Any) -> str:
    """The value of a variable in a deployment whose names are all long; free texts have a hundred characters."""
    longest = "x" * 100  # the name of a table: those of the stacks around it are in it
    match value:
        case str():
            longest = value
        case {"Fn::If": [_, *branches]}:
            longest = max(map(_longest, branches), key=len)
        case {"Ref": "AWS::NoValue"}:
            longest = ""
        case {"Ref": name}:
            parameter = ROOT_TEMPLATE["Parameters"].get(name, {})
            longest = LONG.get(name) or "x" * int(parameter.get("MaxLength", 100))
        case {"Fn::Join": [_, parameter]}:
            longest = _longest(parameter)
        case {"Fn::Sub": text}:
            longest = re.sub(r"\$\{([^}]+)\}", lambda found: _longest({"Ref": found[1]}), text)
        case {"Fn::GetAtt": ["Queues", output]}:
            text = QUEUES["Outputs"][output.removeprefix("Outputs.")]["Value"]["Fn::Sub"]
            longest = re.sub(r"\$\{[^}]+\}", QUEUE_URL, text)
        case _:
            assert "Fn::GetAtt" in value
    return longest


def _either(value: Any) -> list[Any]:
    """Both values of a condition; a value that depends on none, once."""
    return value["Fn::If"][1:] if isinstance(value, dict) else [value]


def _allowed(value: Any) -> list[Any]:
    """What a value may be: itself, or everything that its parameter allows."""
    return [value] if not isinstance(value, dict) else list(ROOT_TEMPLATE["Parameters"][value["Ref"]]["AllowedValues"])


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _function_behind(integrations: dict[tuple[str, str], dict[str, Any]], method: str, url: str) -> str | None:
    """The function that API Gateway calls."""
    resource, _ = resource_of({path for path, _ in integrations}, url)
    integration = integrations.get((resource, method)) or integrations.get((resource, ANY))
    if integration is None:
        return None
    named = re.search(r"\$\{(\w+?)(Aliaslive|\.Arn)\}", json.dumps(integration["uri"]))
    return named[1] if named else None


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

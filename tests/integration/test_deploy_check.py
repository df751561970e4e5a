"""`minichat deploy check`: every set-up that would come to no working deployment is named in one line, all at once."""

import json
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import boto3
import pytest

from minichat.cli import deploy_plan
from minichat.cli.main import main
from minichat.local.issuer import Issuer
from minichat.local.tables import project_root
from tests.support.aws.account import Account, serving
from tests.support.aws.emulator import SAM
from tests.support.patience import PATIENCE
from tests.support.tls import self_signed

Told = dict[str, tuple[str, str]]


@dataclass(slots=True)
class Login:
    """An issuer of tokens, with what it answers at each path."""

    url: str = ""
    pages: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """One as it should be, over TLS that this process trusts."""
    said = Login()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = said.pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(b"" if page is None else json.dumps(page).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    certificate = self_signed("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        said.url = f"https://localhost:{server.server_port}"
        said.pages = {
            "/.well-known/openid-configuration": {"issuer": said.url, "jwks_uri": f"{said.url}/keys"},
            "/keys": key_set(tmp_path / "one"),
            "/others": {"keys": [{**key_set(tmp_path / "another")["keys"][0], "kid": "another"}]},
            "/unusable": {"keys": []},
            "/page": {"hello": "world"},
        }
        yield said
        server.shutdown()


def key_set(folder: Path) -> Any:
    return json.loads(Issuer(folder).jwks_file.read_text(encoding="utf-8"))


@dataclass(slots=True)
class SetUp:
    """What somebody has before a deployment; all is well until a test breaks it."""

    login: Login
    account: Account
    parameters: dict[str, str]
    deploy: dict[str, Any]
    place: dict[str, Any]
    engine: str

    def client(self, service: Any) -> Any:
        return boto3.client(service, endpoint_url=self.engine, region_name="us-east-1")


@pytest.fixture
def set_up(engine: str, login: Login, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    made = SetUp(
        login=login,
        account=Account(),
        parameters={
            "JwtIssuer": login.url,
            "JwtJwksUrl": f"{login.url}/keys",
            "ProviderSecretName": f"minichat/{uuid4().hex}",
        },
        deploy={"capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"], "resolve_s3": True},
        place={"stack_name": f"minichat-{uuid4().hex[:8]}", "region": "us-east-1"},
        engine=engine,
    )
    made.client("secretsmanager").create_secret(Name=made.parameters["ProviderSecretName"], SecretString="sk-1")
    with serving(made.account, engine) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def checked(set_up: SetUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def check(*arguments: str) -> Told:
        """What each check found that is not well; the exit code says whether one failed."""
        config = tmp_path / "samconfig.toml"
        config.write_text(
            "\n".join(
                (
                    "[mine.global.parameters]",
                    *(f"{name} = {json.dumps(value)}" for name, value in set_up.place.items()),
                    "[mine.deploy.parameters]",
                    *(f"{name} = {json.dumps(value)}" for name, value in set_up.deploy.items()),
                    "[mine.deploy.parameters.parameter_overrides]",
                    *(f"{name} = {json.dumps(value)}" for name, value in set_up.parameters.items()),
                )
            ),
            encoding="utf-8",
        )
        code = main(["deploy", "check", "--config", str(config), "--env", "mine", "--json", *arguments])
        told = json.loads(capsys.readouterr().out)
        assert code == (1 if told["failed"] else 0)
        assert all("\n" not in one["detail"] for one in told["checks"])
        assert all(bool(one["advice"]) == (one["result"] != "ok") for one in told["checks"])
        return {one["check"]: (one["result"], one["detail"]) for one in told["checks"] if one["result"] != "ok"}

    return check


def test_nothing_is_said_against_a_set_up_that_works(checked: Callable[..., Told]) -> None:
    assert checked() == {}


Break = Callable[[SetUp], Any]
QUEUE = {"Type": "AWS::SQS::Queue"}
BROKEN: dict[str, tuple[Break, str, str, str]] = {
    "issuer is a placeholder": (
        lambda it: it.parameters.update(JwtIssuer="https://login.example.com/"),
        *("token issuer", "failed", "https://login.example.com/ is a placeholder"),
    ),
    "issuer does not answer": (
        lambda it: it.parameters.update(JwtIssuer="https://localhost:9"),
        *("token issuer", "failed", "https://localhost:9 cannot be reached (ConnectError)"),
    ),
    "issuer calls itself otherwise": (
        lambda it: it.parameters.update(JwtIssuer=it.login.url + "/"),
        *("token issuer", "failed", "{login}/ calls itself '{login}'"),
    ),
    "issuer tells nothing of itself": (
        lambda it: it.login.pages.pop("/.well-known/openid-configuration"),
        *("token issuer", "warning", "{login} tells nothing of itself at /.well-known/openid-configuration"),
    ),
    "key set is nowhere": (
        lambda it: it.parameters.update(JwtJwksUrl=it.login.url + "/none"),
        *("key set", "failed", "{login}/none cannot be read: Fail to fetch data from the url"),
    ),
    "key set is something else": (
        lambda it: it.parameters.update(JwtJwksUrl=it.login.url + "/page"),
        *("key set", "failed", "{login}/page is no JSON Web Key Set"),
    ),
    "key set has no key": (
        lambda it: it.parameters.update(JwtJwksUrl=it.login.url + "/unusable"),
        *("key set", "failed", "{login}/unusable is no JSON Web Key Set with a key that signs"),
    ),
    "key set is another issuer's": (
        lambda it: it.parameters.update(JwtJwksUrl=it.login.url + "/others"),
        *("key set", "failed", "{login}/others has keys, and none is the issuer's"),
    ),
    "parameter does not match its pattern": (
        lambda it: it.parameters.update(ProviderBaseUrl="http://api.openai.com"),
        *("parameter ProviderBaseUrl", "failed", "'http://api.openai.com' does not match https://.+"),
    ),
    "parameter is none of those allowed": (
        lambda it: it.parameters.update(LogRetentionDays="12"),
        *("parameter LogRetentionDays", "failed", "'12' is none of 1, 3, 5, 7"),
    ),
    "parameter is no number": (
        lambda it: it.parameters.update(ThrottlingRateLimit="many"),
        *("parameter ThrottlingRateLimit", "failed", "'many' is no number"),
    ),
    "parameter is too small": (
        lambda it: it.parameters.update(AuditLockDays="-1"),
        *("parameter AuditLockDays", "failed", "-1 is not between 0 and None"),
    ),
    "parameter is too long": (
        lambda it: it.parameters.update(JwtSettings=json.dumps({"subject_claim": "x" * 300})),
        *("parameter JwtSettings", "failed", "has 321 characters, and 256 is the most"),
    ),
    "parameter is misspelled": (
        lambda it: it.parameters.update(LogLevl="DEBUG"),
        *("parameter LogLevl", "failed", "the template has no such parameter"),
    ),
    "settings in a parameter are wrong": (
        lambda it: it.parameters.update(JwtSettings='{"leeway_seconds": -1}'),
        *("parameters", "failed", "MINICHAT_AUTH__LEEWAY_SECONDS (auth.leeway_seconds): Input should be"),
    ),
    "secret is not there": (
        lambda it: it.parameters.update(ProviderSecretName="minichat/nothing"),
        *("provider openai: secret", "failed", "minichat/nothing is not there"),
    ),
    "secret is empty": (
        lambda it: it.client("secretsmanager").put_secret_value(
            SecretId=it.parameters["ProviderSecretName"], SecretString=" \n"
        ),
        *("provider openai: secret", "failed", "{ProviderSecretName} is empty"),
    ),
    "secret may not be read": (
        lambda it: it.parameters.update(Providers=json.dumps({"vllm": provider("secretsmanager", "somewhere/else")})),
        *("provider vllm: secret", "failed", "no function may read secretsmanager somewhere/else"),
    ),
    "secret is a variable": (
        lambda it: it.parameters.update(Providers=json.dumps({"vllm": provider("env", "VLLM_KEY")})),
        *("provider vllm: secret", "failed", "no function may read env VLLM_KEY"),
    ),
    "parameter with a key is not there": (
        lambda it: it.parameters.update(Providers=json.dumps({"vllm": provider("ssm", "/mini-chat/providers/vllm")})),
        *("provider vllm: secret", "failed", "/mini-chat/providers/vllm is not there"),
    ),
    "region does not stream": (
        lambda it: setattr(it.account, "streams", False),
        *("region", "failed", "API Gateway in us-east-1 does not stream responses, says its type registry"),
    ),
    "region is misspelled": (
        lambda it: it.place.update(region="us-est-1"),
        *("region", "failed", "us-est-1 is no region with Lambda and API Gateway that boto3"),
    ),
    "no region is named": (lambda it: it.place.pop("region"), *("region", "failed", "none is named")),
    "profile is not there": (
        lambda it: it.place.update(profile="nobodys"),
        *("credentials", "failed", "The config profile (nobodys) could not be found"),
    ),
    "concurrency is too low": (
        lambda it: setattr(it.account, "concurrency", 10),
        *("concurrency", "failed", "10 functions may run at once; consumers take up to 55"),
    ),
    "concurrency is tight": (
        lambda it: setattr(it.account, "concurrency", 100),
        *("concurrency", "warning", "100 functions may run at once; consumers take up to 55"),
    ),
    "gateway waits too short": (
        lambda it: setattr(it.account, "timeout_milliseconds", 15_000),
        *("gateway timeout", "failed", "API Gateway waits 15000 ms, and ApiFunction may take 20 s"),
    ),
    "quotas may not be seen": (
        lambda it: it.account.refuses.add("GetServiceQuota"),
        *("gateway timeout", "warning", "AWS does not tell (AccessDeniedException)"),
    ),
    "gateway cannot log": (
        lambda it: it.parameters.update(OwnsGatewayAccount="false"),
        *("gateway log role", "failed", "the account has none, so the stage cannot log"),
    ),
    "gateway's role is another's": (
        lambda it: setattr(it.account, "log_role", "arn:aws:iam::1:role/theirs"),
        *("gateway log role", "warning", "arn:aws:iam::1:role/theirs would be replaced"),
    ),
    "bucket is not there": (
        lambda it: it.deploy.update(s3_bucket="nobodys-bucket-at-all"),
        *("bucket of the build", "failed", "there is no bucket nobodys-bucket-at-all"),
    ),
    "no bucket is named": (
        lambda it: it.deploy.pop("resolve_s3"),
        *("bucket of the build", "failed", "none is named"),
    ),
    "capability is not given": (
        lambda it: it.deploy.update(capabilities="CAPABILITY_IAM"),
        *("capabilities", "failed", "CAPABILITY_AUTO_EXPAND not given"),
    ),
    "domain has no certificate": (
        lambda it: it.parameters.update(DomainName="chat.acme.org"),
        *("parameter DomainCertificateArn", "failed", "is empty, and DomainName is not"),
    ),
    "something is provisioned on instances": (
        lambda it: it.parameters.update(Compute="managed-instances", StreamProvisionedConcurrency="1"),
        *("parameter StreamProvisionedConcurrency", "failed", "nothing is provisioned on managed instances"),
    ),
    "stack has no name": (lambda it: it.place.pop("stack_name"), *("stack", "failed", "has no name")),
    "stack is being changed": (
        lambda it: make_stack(it, QUEUE, then="UPDATE_IN_PROGRESS"),
        *("stack", "failed", "{stack_name} is UPDATE_IN_PROGRESS"),
    ),
    "stack was rolled back": (
        lambda it: make_stack(it, QUEUE | {"Properties": {"RedrivePolicy": {"maxReceiveCount": 0}}}),
        *("stack", "failed", "{stack_name} is ROLLBACK_COMPLETE"),
    ),
    "stack cannot go back": (
        lambda it: make_stack(it, QUEUE, then="UPDATE_ROLLBACK_FAILED"),
        *("stack", "failed", "{stack_name} is UPDATE_ROLLBACK_FAILED"),
    ),
}


def provider(source: str, name: str) -> dict[str, Any]:
    secret = {"source": source, "name": name}
    return {"kind": "openai_chat", "base_url": "https://llm.example.org", "auth": {"secret": secret}}


def certificate(it: SetUp, name: str, status: str = "ISSUED") -> str:
    it.account.certificate = status
    arn: str = it.client("acm").request_certificate(DomainName=name, ValidationMethod="DNS")["CertificateArn"]
    return arn


def web_acl(it: SetUp, scope: str = "REGIONAL", rules: Sequence[str] = (), **group: Any) -> str:
    """One with these groups of AWS's rules."""
    seen = {"SampledRequestsEnabled": False, "CloudWatchMetricsEnabled": False, "MetricName": "guard"}
    of_aws = [
        {
            **{"Name": name, "Priority": number, "OverrideAction": {"None": {}}, "VisibilityConfig": seen},
            "Statement": {"ManagedRuleGroupStatement": {"VendorName": "AWS", "Name": name, **group}},
        }
        for number, name in enumerate(rules)
    ]
    made = it.client("wafv2").create_web_acl(
        Name=f"guard-{uuid4()}", Scope=scope, DefaultAction={"Allow": {}}, VisibilityConfig=seen, Rules=of_aws
    )
    arn: str = made["Summary"]["ARN"]
    return arn


def key(it: SetUp, **said: Any) -> str:
    """A key whose policy is AWS's own, which knows the account alone."""
    arn: str = it.client("kms").create_key(**said)["KeyMetadata"]["Arn"]
    return arn


def disabled(it: SetUp, arn: str) -> str:
    it.client("kms").disable_key(KeyId=arn)
    return arn


def make_stack(it: SetUp, resource: dict[str, Any], then: str | None = None) -> None:
    """A stack of that name on the engine, whatever becomes of it; `then` is a state that it has later."""
    it.account.status = then
    client = it.client("cloudformation")
    client.create_stack(StackName=it.place["stack_name"], TemplateBody=json.dumps({"Resources": {"One": resource}}))
    while True:
        (found,) = client.describe_stacks(StackName=it.place["stack_name"])["Stacks"]
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            return


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_set_up_is_named_in_one_line_and_nothing_else_is(
    name: str, set_up: SetUp, checked: Callable[..., Told]
) -> None:
    break_it, check, result, detail = BROKEN[name]
    break_it(set_up)
    told = checked()
    assert list(told) == [check], told
    assert told[check][0] == result
    said = detail.format(login=set_up.login.url, **set_up.parameters, **set_up.place)
    assert told[check][1].startswith(said), told


def test_what_somebody_wants_and_has_is_well(checked: Callable[..., Told], set_up: SetUp) -> None:
    client, name = set_up.client("cloudformation"), f"key-{uuid4().hex[:8]}"
    template = (project_root() / "examples" / "key" / "template.yaml").read_text(encoding="utf-8")
    client.create_stack(StackName=name, TemplateBody=template)
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    (made,) = client.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    counted = [{"Name": "SizeRestrictions_BODY", "ActionToUse": {"Count": {}}}]
    set_up.parameters |= {
        "DomainName": "chat.acme.org",
        "DomainCertificateArn": certificate(set_up, "*.acme.org"),
        made["OutputKey"]: made["OutputValue"],
        "WebAclArn": web_acl(set_up, rules=["AWSManagedRulesCommonRuleSet"], RuleActionOverrides=counted),
        "ApiProvisionedConcurrency": "5",
        "StreamProvisionedConcurrency": "50",
        "LogRetentionDays": "3653",
    }
    assert checked() == {}


NOWHERE = "arn:aws:{}:us-east-1:000000000000:{}/" + str(uuid4())
UNFIT: dict[str, tuple[Callable[[SetUp], dict[str, str]], dict[str, str]]] = {
    "in another region": (
        lambda it: {
            **{"DomainName": "chat.acme.org", "DomainCertificateArn": "arn:aws:acm:eu-west-1:1:certificate/c1"},
            "WebAclArn": web_acl(it).replace("us-east-1", "eu-west-1"),
            "EncryptionKeyArn": "arn:aws:kms:eu-west-1:1:key/k1",
        },
        dict.fromkeys(
            ("certificate of the domain", "web ACL", "encryption key"), "it is in eu-west-1, and the stack in us-east-1"
        ),
    ),
    "not there": (
        lambda it: {
            **{"DomainName": "chat.acme.org", "DomainCertificateArn": NOWHERE.format("acm", "certificate")},
            "WebAclArn": f"{web_acl(it)[:-36]}{uuid4()}",
            "EncryptionKeyArn": NOWHERE.format("kms", "key"),
        },
        {
            "certificate of the domain": f"{NOWHERE.format('acm', 'certificate')} is not there",
            "web ACL": "none has this name and id",
            "encryption key": f"{NOWHERE.format('kms', 'key')} is not there",
        },
    ),
    "another's, for something else, and disabled": (
        lambda it: {
            **{"DomainName": "chat.acme.org", "DomainCertificateArn": certificate(it, "www.acme.org")},
            "WebAclArn": web_acl(it, scope="CLOUDFRONT"),
            "EncryptionKeyArn": disabled(it, key(it)),
        },
        {
            "certificate of the domain": "it is for www.acme.org, not for chat.acme.org",
            "web ACL": "it is for CloudFront",
            "encryption key": "it is Disabled",
        },
    ),
    "not ready, too strict, closed, and too much": (
        lambda it: {
            **{"DomainName": "chat.acme.org", "DomainCertificateArn": certificate(it, "*.acme.org", "FAILED")},
            "WebAclArn": web_acl(it, rules=["AWSManagedRulesCommonRuleSet"]),
            "EncryptionKeyArn": key(it),
            **{"ApiProvisionedConcurrency": "900", "StreamProvisionedConcurrency": "1"},
        },
        {
            "certificate of the domain": "it is FAILED",
            "web ACL": "AWSManagedRulesCommonRuleSet blocks bodies above 8 KB: long messages, and files",
            "encryption key": "its policy does not allow CloudWatch Logs and S3, which writes to a queue",
            "concurrency": "901 environments shall be provisioned, and 900 can be",
        },
    ),
    "of another kind": (
        lambda it: {"EncryptionKeyArn": key(it, KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")},
        {"encryption key": "it is HMAC_256, for GENERATE_VERIFY_MAC"},
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_somebody_wants_and_cannot_have_is_named(name: str, set_up: SetUp, checked: Callable[..., Told]) -> None:
    wanted, details = UNFIT[name]
    set_up.parameters |= wanted(set_up)
    told = checked()
    assert {check: detail for check, (_, detail) in told.items()} == details
    assert [check for check, (result, _) in told.items() if result == "warning"] == (
        ["web ACL"] if "too strict" in name else []
    )


def test_all_that_is_broken_is_told_at_once(set_up: SetUp, checked: Callable[..., Told]) -> None:
    names = (
        *("issuer is a placeholder", "key set is nowhere", "parameter is none of those allowed"),
        *("secret is empty", "region does not stream", "concurrency is too low", "gateway waits too short"),
        *("bucket is not there", "capability is not given", "stack was rolled back"),
    )
    for name in names:
        BROKEN[name][0](set_up)
    assert len(names) == 10
    assert sorted(checked()) == sorted(BROKEN[name][1] for name in names)


def test_without_credentials_nothing_in_the_account_is_looked_at_and_that_is_said_once(
    checked: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    assert checked() == {
        "credentials": ("failed", "there are no AWS credentials: nothing in the account was looked at")
    }


def test_a_region_of_the_command_line_wins_over_the_files(checked: Callable[..., Told], set_up: SetUp) -> None:
    set_up.place["region"] = "us-est-1"
    assert list(checked()) == ["region"]
    assert "region" not in checked("--region", "us-east-1")


def test_parameters_of_the_command_line_take_the_place_of_the_files(checked: Callable[..., Told]) -> None:
    assert set(checked("--parameter-overrides", "LogLevel=DEBUG")) >= {"parameter JwtIssuer", "parameter JwtJwksUrl"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[dev.deploy.parameters]", "has no environment 'mine', only dev."),
        ("[mine", "cannot be parsed"),
        (
            '[mine.deploy.parameters]\nparameter_overrides = "JwtIssuer"',
            "'JwtIssuer' is not Name=value as SAM reads it",
        ),
    ],
)
def test_a_file_that_sam_would_not_understand_is_refused(
    text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "samconfig.toml").write_text(text, encoding="utf-8")
    assert main(["deploy", "check", "--config", str(tmp_path / "samconfig.toml"), "--env", "mine"]) == 2
    assert why in capsys.readouterr().err


FORMS: list[Any] = [
    ["LogLevel=DEBUG", "JwtAudience=chat"],
    ['LogLevel="DEBUG"', "JwtAudience='my chat'"],
    "LogLevel=DEBUG JwtAudience=chat",
    ["ParameterKey=LogLevel,ParameterValue=DEBUG", 'ParameterKey=JwtAudience,ParameterValue="my chat"'],
    ['JwtSettings="{\\"subject_claim\\": \\"oid\\"}"', "BedrockModelArns=a,b"],
    {"LogLevel": "DEBUG", "JwtSettings": '{"subject_claim": "oid"}', "AuditLockDays": 3, "CorsOrigins": ["a", "b"]},
]


def test_overrides_mean_what_sam_takes_them_for() -> None:
    if not SAM.is_dir():
        pytest.skip("the SAM CLI is not installed (`make tools`)")
    script = (
        "import json, sys; from samcli.cli.types import CfnParameterOverridesType as It; "
        "print(json.dumps([It().convert(one, None, None) for one in json.load(sys.stdin)]))"
    )
    command = [str(SAM / "bin" / "python"), "-c", script]
    run = subprocess.run(command, input=json.dumps(FORMS), capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert [deploy_plan.named(one) for one in FORMS] == json.loads(run.stdout)


def test_a_value_that_sam_would_cut_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    # SAM would deploy `{`, without a word.
    assert main(["deploy", "check", "--parameter-overrides", 'JwtSettings={"tenant":"acme"}']) == 2
    assert "at the first quote or space" in capsys.readouterr().err

"""What a million turns cost on AWS, from measured quantities and list prices: the tables of docs/scaling.md.

`make docs` puts them between the page's markers. A turn: 1 KB in, 2 KB out, 500 deltas in ten seconds. Amounts are
millions of a unit per million turns, so one per turn is 1; of bytes they are GB, so a kilobyte per turn is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# List prices of us-east-1 in dollars as known in 2026-11 (compare aws.amazon.com/<service>/pricing); first paid tiers.
GATEWAY_REQUESTS = 3.50  # per million, api-gateway: REST; a stream is one per 10 MB
LAMBDA_REQUESTS = 0.20  # per million, lambda
LAMBDA_GB_SECONDS = 13.3334  # per million, lambda: arm64
SNAPSTART_RESTORED = 139.7998  # per million GB, lambda: SnapStart
SNAPSTART_KEPT = 1.5046  # per million GB-seconds, lambda: SnapStart
INSTANCE_HOURS = 0.0816  # per m7g.large of two vCPUs, ec2: on demand
INSTANCE_FEE = 1.15  # lambda: managed instances, 15 % on top of EC2
WRITE_UNITS = 0.625  # per million, dynamodb: on demand
READ_UNITS = 0.125  # per million, dynamodb: on demand
TABLE_STORAGE, TABLE_BACKUP = 0.25, 0.20  # per GB and month, dynamodb: storage, point-in-time recovery
SQS_REQUESTS, SQS_FIFO_REQUESTS = 0.40, 0.50  # per million, sqs: standard, FIFO
S3_PUTS, S3_STORAGE = 5.00, 0.023  # per million; per GB and month, s3: standard
LOGS = 0.50  # per GB taken in, cloudwatch
METRICS, ALARMS, DASHBOARD = 0.30, 0.10, 3.00  # each per month, cloudwatch
SECRETS = 0.40  # per secret and month, secrets-manager; kms: AWS's own key, which DynamoDB keeps for minutes: cents
DATA_OUT = 0.09  # per GB, ec2: data transfer to the internet
NAT_GB = NAT_HOURS = 0.045  # per GB and per hour, vpc: NAT gateway
MODEL = 2_000.0  # a thousand tokens a turn at $2 per million tokens: an example; every provider has its own price

# Quantities of a turn. "Measured" is on a machine of ours; nothing was run on AWS.
MEMORY_SIZES = (256, 512, 1024)  # MB; the process had 82 MiB idle, 89 with fifty streams (tests/bench/many_streams.py)
MB_PER_VCPU = 1769  # Lambda Developer Guide, "Configure Lambda function memory"
STREAMED_SECONDS = 10.0
CPU_OF_SEND = 0.006  # s of a full vCPU besides deltas, measured (tests/bench/first_delta.py)
CPU_OF_TURN = 0.119 + 400 * 0.00034  # s, measured: of a hundred deltas with fifty streams at once; of each one more
USE_OF_INSTANCES = 0.6  # of their CPU: an assumption
SEND_AND_END = 26  # write units, measured (tests/bench/write_units.py); 28 where text does not compress
PARTS = 12  # write units: parts of the stream and signs of life, 1.2 a second
LEDGER = 2.2  # write units, measured: up to 33 turns in one transaction; 6 for one alone
READS = 8 + 1 + 16  # read units, measured (tests/bench/read_units.py): send, quota at the end, a look of one at most
PROVIDER_KB = 500 * 0.25  # events of the provider with 250 bytes each: an assumption
PROMPT_KB = 16  # ten recent messages: arithmetic
STREAM_KB = 500 * 0.068  # measured: bytes per delta
LOG_KB = 4.0 + 0.4 + 1.0 + 2 * 0.5  # stream function measured; access line, Lambda's own lines, consumers by reading
WORKERS, WORKER_GB_SECONDS = 3, 0.03  # relay, audit, usage at 512 MB: arithmetic from measured CPU (bench/consumers.py)
COLD_STARTS = 0.01  # of streams: an assumption
BUFFERED = 0.2  # requests besides, such as lists: an assumption
BUFFERED_SECONDS, BUFFERED_READS = 0.05, 8  # at 1 GB: an assumption; measured, newest 20 messages
SUMMARIES = 0.1  # one in ten turns, of 512 MB for five seconds of a model: an assumption
SUMMARY_GB_SECONDS, SUMMARY_WRITES, SUMMARY_READS, SUMMARY_REQUESTS = 0.5 * 5, 2 + 4, 20, 3  # units: by reading
KEPT_KB = 5  # messages, turn, ledger and indexes: arithmetic from the items of tests/bench/write_units.py
AUDIT_KB = 1.5  # by reading

# What a deployment has, whatever it does.
HOURS, MINUTES = 730, 43_800  # a month
METRIC_SERIES = 150  # of docs/operations.md with their dimensions, and the gateway's by method: an estimate
ALARM_COUNT, SECRET_COUNT, ZONES, QUEUES = 22, 2, 3, 6
POLLS_A_MINUTE = 15  # of Lambda at each queue: five pollers that wait for twenty seconds
API_GB = 1.0
MILLIONS_A_MONTH = (1, 3, 10, 30)
COLUMNS = (*(f"lambda, {size:,} MB" for size in MEMORY_SIZES), "managed instances")
TARGETS = (60.0, 60.0, 60.0, 45.0)  # dollars of infrastructure for a million turns


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill: an amount for each of COLUMNS, and the dollars of one unit."""

    what: str
    unit: str
    price: float
    amounts: tuple[float, ...]

    @property
    def dollars(self) -> tuple[float, ...]:
        """By COLUMNS."""
        return tuple(amount * self.price for amount in self.amounts)


def turns() -> list[Line]:
    """The infrastructure of a million turns."""
    sizes = [size / 1024 for size in MEMORY_SIZES]
    seconds = [STREAMED_SECONDS + CPU_OF_SEND / min(size / MB_PER_VCPU, 1) for size in MEMORY_SIZES]
    streams = [size * long for size, long in zip(sizes, seconds, strict=True)]
    vcpu_hours = CPU_OF_TURN / USE_OF_INSTANCES * 1_000_000 / 3600
    return [
        Line("stream function, waiting", "M GB-s", LAMBDA_GB_SECONDS, (*streams, 0)),
        Line("instances, busy for 60 %", "vCPU-h", INSTANCE_HOURS / 2 * INSTANCE_FEE, (0, 0, 0, vcpu_hours)),
        Line("starts from a snapshot", "M GB", SNAPSTART_RESTORED, (*(size * COLD_STARTS for size in sizes), 0)),
        Line("API function", "M GB-s", LAMBDA_GB_SECONDS, (*[BUFFERED * BUFFERED_SECONDS * API_GB] * 3, 0)),
        _same("relay and consumers", "M GB-s", LAMBDA_GB_SECONDS, WORKER_GB_SECONDS),
        _same("requests to functions", "M", LAMBDA_REQUESTS, 1 + BUFFERED + WORKERS),
        _same("API Gateway", "M requests", GATEWAY_REQUESTS, 1 + BUFFERED),
        _same("writes: send and end, events included", "M units", WRITE_UNITS, SEND_AND_END),
        _same("writes: parts and signs of life", "M units", WRITE_UNITS, PARTS),
        _same("writes: ledger and totals", "M units", WRITE_UNITS, LEDGER),
        _same("reads: turns", "M units", READ_UNITS, READS),
        _same("reads: lists", "M units", READ_UNITS, BUFFERED * BUFFERED_READS),
        _same("DynamoDB stream, read by Lambda", "M units", 0, 1),
        _same("SQS: two messages sent, received, deleted", "M requests", SQS_REQUESTS, 6),
        _same("audit trail: objects put", "M", S3_PUTS, 1),
        _same("summaries: function", "M GB-s", LAMBDA_GB_SECONDS, SUMMARIES * SUMMARY_GB_SECONDS),
        _same("summaries: writes", "M units", WRITE_UNITS, SUMMARIES * SUMMARY_WRITES),
        _same("summaries: reads", "M units", READ_UNITS, SUMMARIES * SUMMARY_READS),
        _same("summaries: queue", "M requests", SQS_FIFO_REQUESTS, SUMMARIES * SUMMARY_REQUESTS),
        _same("logs", "GB", LOGS, LOG_KB),
        _same("data out to clients", "GB", DATA_OUT, STREAM_KB),
        _same("data out to the provider", "GB", DATA_OUT, PROMPT_KB),
        Line("NAT, both ways", "GB", NAT_GB, (0, 0, 0, PROVIDER_KB + PROMPT_KB)),
        _same("storage, the first month", "GB", TABLE_STORAGE + TABLE_BACKUP, KEPT_KB),
        _same("audit trail, the first month", "GB", S3_STORAGE, AUDIT_KB),
    ]


def months() -> list[Line]:
    """What every month costs without any turn."""
    kept = [(API_GB + size / 1024) * HOURS * 3600 / 1_000_000 for size in MEMORY_SIZES]
    return [
        Line("least instances: three m7g.large", "h", INSTANCE_HOURS * INSTANCE_FEE, (0, 0, 0, ZONES * HOURS)),
        Line("NAT gateways, one per zone", "h", NAT_HOURS, (0, 0, 0, ZONES * HOURS)),
        Line("snapshots of one version", "M GB-s", SNAPSTART_KEPT, (*kept, 0)),
        _same("metrics", "metrics", METRICS, METRIC_SERIES),
        _same("alarms", "alarms", ALARMS, ALARM_COUNT),
        _same("dashboard", "", DASHBOARD, 1),
        _same("secrets", "secrets", SECRETS, SECRET_COUNT),
        _same("polls of empty queues", "M requests", SQS_REQUESTS, QUEUES * POLLS_A_MINUTE * MINUTES / 1_000_000),
        _same("watchdog, 0.2 s each minute", "M GB-s", LAMBDA_GB_SECONDS, MINUTES * 0.2 / 1_000_000),
    ]


def kept() -> list[Line]:
    """What each million turns that is kept costs every month after its first."""
    scans = 30 * KEPT_KB / 4  # consistent, so a unit for 4 KB; once a day
    return [
        _same("storage", "GB", TABLE_STORAGE, KEPT_KB),
        _same("backup", "GB", TABLE_BACKUP, KEPT_KB),
        _same("daily reconciliation reads everything", "M units", READ_UNITS, scans),
        _same("audit trail", "GB", S3_STORAGE, AUDIT_KB),
    ]


def month_of(millions: float) -> tuple[float, ...]:
    """Dollars of a month of that many turns, by COLUMNS: least instances are paid for until turns need more."""
    instances = next(line for line in turns() if line.unit == "vCPU-h").dollars[-1] * millions
    least = months()[0].dollars[-1]
    *on_lambda, placed = (turn * millions + month for turn, month in zip(sums(turns()), sums(months()), strict=True))
    return (*on_lambda, placed - min(instances, least))


def sums(lines: Sequence[Line]) -> tuple[float, ...]:
    """Dollars by COLUMNS."""
    return tuple(map(sum, zip(*(line.dollars for line in lines), strict=True)))


def write() -> str:
    """The tables, as Markdown."""
    million = sums(turns())
    more = [
        _row("target", "", TARGETS),
        _row("above the target", "", [one - most for one, most in zip(million, TARGETS, strict=True)]),
        _row("model, a thousand tokens a turn", "", [MODEL] * len(COLUMNS)),
        _row("**with the model**", "", [one + MODEL for one in million]),
    ]
    by_month = [_row(f"{millions} million turns", "", month_of(millions)) for millions in MILLIONS_A_MONTH]
    return "\n\n".join(
        [
            "<!-- Made by `make docs` from `infra/cost.py`: change it there. -->",
            _table("a million turns", turns(), more),
            _table("every month", months(), []),
            _table("every month, for each million turns kept", kept(), []),
            "\n".join((*_head("a month, first month of its storage included"), *by_month)),
        ]
    )


def _same(what: str, unit: str, price: float, amount: float) -> Line:
    return Line(what, unit, price, (amount,) * len(COLUMNS))


def _table(title: str, lines: Sequence[Line], more: Sequence[str]) -> str:
    rows = [_row(line.what, f"{_amount(line)} × ${line.price:.6g}", line.dollars) for line in lines]
    return "\n".join((*_head(title), *rows, _row("**infrastructure**", "", sums(lines)), *more))


def _head(title: str) -> tuple[str, str]:
    return f"| {title} | amount × price | {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * len(COLUMNS)


def _amount(line: Line) -> str:
    several = list(dict.fromkeys(f"{amount:.5g}" for amount in line.amounts if amount))
    return " / ".join(several) + (f" {line.unit}" if line.unit else "")


def _row(what: str, how: str, dollars: Sequence[float]) -> str:
    return f"| {what} | {how} | " + " | ".join(f"${one:,.2f}" if one else "–" for one in dollars) + " |"


if __name__ == "__main__":
    print(write())

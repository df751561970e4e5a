"""Adds up what each tenant's turns cost, from the export queue. Needs boto3, jsonschema and this folder.

    python consumer_example.py QUEUE_URL totals.sqlite

It ends when the queue has been empty for a while, and prints the totals.
"""

import json
import sqlite3
import sys
from pathlib import Path

import boto3
from jsonschema import Draft202012Validator

SCHEMA = Draft202012Validator(json.loads(Path(__file__).with_name("usage.schema.json").read_text()))


def main(queue_url: str, database: str) -> None:
    totals = sqlite3.connect(database, isolation_level=None)
    totals.execute("CREATE TABLE IF NOT EXISTS seen (dedupe_key TEXT PRIMARY KEY)")
    totals.execute("CREATE TABLE IF NOT EXISTS total (tenant TEXT PRIMARY KEY, turns INT, micro INT)")
    sqs = boto3.client("sqs")
    while messages := sqs.receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=2, MessageAttributeNames=["All"]
    ).get("Messages", []):
        for message in messages:
            if message["MessageAttributes"]["event_type"]["StringValue"] == "turn_usage":
                event = json.loads(message["Body"])
                SCHEMA.validate(event)  # raises: the message comes again, and goes to the dead-letter queue in the end
                if event["system_task_type"] is None:  # a turn, not a title or a summary
                    add(totals, event, message["MessageAttributes"]["dedupe_key"]["StringValue"])
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    for tenant, turns, micro in totals.execute("SELECT * FROM total ORDER BY tenant"):
        print(tenant, turns, micro)


def add(totals: sqlite3.Connection, event: dict, dedupe_key: str) -> None:
    """The effect and the record of it, in one transaction: a message that comes twice counts once."""
    totals.execute("BEGIN IMMEDIATE")
    if totals.execute("INSERT OR IGNORE INTO seen VALUES (?)", (dedupe_key,)).rowcount:
        totals.execute(
            "INSERT INTO total VALUES (?, 1, ?)"
            " ON CONFLICT DO UPDATE SET turns = turns + 1, micro = micro + excluded.micro",
            (event["tenant_id"], event["committed_credits_micro"]),
        )
    totals.execute("COMMIT")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The conversation table read from end to end, for operators' commands. No request ever does this."""

from collections.abc import Iterator

from pynamodb.exceptions import ScanError

from minichat.domain.errors import ServiceUnavailable
from minichat.storage.items import Raw, table


def items() -> Iterator[Raw]:
    """Every item, a page at a time: each as it was when its page was read, so the whole is no single moment.

    Raises ServiceUnavailable.
    """
    start = None
    while True:
        try:
            page = table().scan(exclusive_start_key=start, consistent_read=True)
        except ScanError as error:
            raise ServiceUnavailable from error
        yield from page["Items"]
        start = page.get("LastEvaluatedKey")
        if start is None:
            return

"""Schemathesis hooks: skip inputs that the schema allows but a rule forbids which JSON Schema cannot express."""

import itertools
import re
import unicodedata
from datetime import datetime

import schemathesis

ZERO = re.compile(r"\s*[+-]?0+(\.0+)?\s*")


def is_zero(value):
    return value in (0, False) or isinstance(value, str) and bool(ZERO.fullmatch(value))


def places(value):
    """The number of decimal places of a number. `multipleOf` would compare binary fractions."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    mantissa, _, exponent = repr(value).partition("e")
    return len(mantissa.partition(".")[2].rstrip("0")) - int(exponent or 0)


# Invisible characters whose Unicode category is not separator, control or format.
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")


def is_blank(text):
    """Whether a text has no visible character. Such a text is not a valid title or name."""
    return isinstance(text, str) and all(
        unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cf") or INVISIBLE.match(c) for c in text
    )


ADDRESSES = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    # Each request has its own address, so that the limit of wrong keys per address is not the response to most requests.
    number = next(ADDRESSES)
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
    # A request may wait for a transaction for up to a minute, and an operator's endpoint has paused the queue.
    try:
        if case.operation.path.startswith("/v1/transactions") and 1 < float(case.query["wait"]) <= 60:
            case.query["wait"] = 1
    except (KeyError, TypeError, ValueError):
        pass
    # An idempotency key that was used before with another body is a 422, although each request alone is valid. Removed
    # here, because one phase spells the name of the header in capitals, past the hooks that generate headers.
    if case.operation.path == "/asset" and case.headers:
        for name in [name for name in case.headers if name.lower() == "idempotency-key"]:
            del case.headers[name]


@schemathesis.hook
def filter_body(context, body):
    path = context.operation.path
    if path == "/api/v1/setup" and isinstance(body, dict):
        # A grid with a single cell is refused: "X and Y cannot both be zero".
        return not (is_zero(body.get("x")) and is_zero(body.get("y")))
    if path == "/v1/webhooks/transactions" and isinstance(body, dict):
        return places(body.get("amount")) <= 6
    if path == "/v1/webhooks/transactions/batch" and isinstance(body, list):
        return all(places(row.get("amount")) <= 6 for row in body if isinstance(row, dict))
    if isinstance(body, dict) and (is_blank(body.get("title")) or is_blank(body.get("full_name"))):
        return False
    if path == "/asset" and isinstance(body, list):
        return all(places(asset.get("interest_rate")) <= 100 for asset in body if isinstance(asset, dict))
    return True


@schemathesis.hook
def map_query(context, query):
    # The currencies are a setting, so the schema does not list them.
    if context.operation.path in ("/simple_price", "/market_chart") and query and re.fullmatch(
        r"\s*[A-Za-z0-9]{2,10}\s*", str(query.get("currency", ""))
    ):
        query["currency"] = "eur"
    return query


@schemathesis.hook
def filter_query(context, query):
    if query and is_blank(query.get("q")):
        return False
    if context.operation.path != "/logs/export" or not query:
        return True
    # A range that ends before it begins.
    try:
        begin, end = (datetime.fromisoformat(str(query[name]).replace("Z", "+00:00")) for name in ("from", "to"))
        return begin <= end
    except (KeyError, ValueError):
        return "to" not in query

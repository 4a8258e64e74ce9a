"""Inputs that the document allows and a rule forbids that JSON Schema cannot express. They are not generated."""

import re
from datetime import datetime

import schemathesis

ZERO = re.compile(r"\s*[+-]?0+(\.0+)?\s*")


def is_zero(value):
    return value in (0, False) or isinstance(value, str) and bool(ZERO.fullmatch(value))


def places(value):
    """How many decimal places a number has; `multipleOf` would compare binary fractions."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    mantissa, _, exponent = repr(value).partition("e")
    return len(mantissa.partition(".")[2].rstrip("0")) - int(exponent or 0)


@schemathesis.hook
def filter_body(context, body):
    path = context.operation.path
    if path == "/api/v1/setup" and isinstance(body, dict):
        # A grid of one place: "X and Y cannot both be zero".
        return not (is_zero(body.get("x")) and is_zero(body.get("y")))
    if path == "/v1/webhooks/transactions" and isinstance(body, dict):
        return places(body.get("amount")) <= 6
    if path == "/asset" and isinstance(body, list):
        return all(places(asset.get("interest_rate")) <= 100 for asset in body if isinstance(asset, dict))
    return True


@schemathesis.hook
def map_query(context, query):
    # Which currencies there are is a setting, so the document does not list them.
    if context.operation.path in ("/simple_price", "/market_chart") and query and re.fullmatch(
        r"\s*[A-Za-z0-9]{2,10}\s*", str(query.get("currency", ""))
    ):
        query["currency"] = "eur"
    return query


@schemathesis.hook
def filter_query(context, query):
    if context.operation.path != "/logs/export" or not query:
        return True
    # A range that ends before it begins.
    try:
        begin, end = (datetime.fromisoformat(str(query[name]).replace("Z", "+00:00")) for name in ("from", "to"))
        return begin <= end
    except (KeyError, ValueError):
        return "to" not in query

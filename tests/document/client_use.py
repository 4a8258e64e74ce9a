"""Uses the generated openapi-python-client: mypy checks this file, then it runs against a live API."""

import sys

from client import AuthenticatedClient, Client
from client.api.interest_rates import get_interest_rate, submit_assets
from client.api.items import create_item, get_item, list_items
from client.api.mars_probes import check_probes, move_probe, set_probe_up
from client.api.transactions import get_transaction, list_transactions, receive_transaction
from client.api.users import log_in, register_user
from client.models import (
    AccessToken,
    AssetRequest,
    InterestRate,
    Item,
    ItemRequest,
    ListTransactionsStatus,
    LoginRequest,
    MoveRequest,
    Outcome,
    Probe,
    ProbeList,
    Problem,
    RegisterRequest,
    SetupRequest,
    SetupRequestDirection,
    Transaction,
    TransactionRequest,
    TransactionStatus,
    User,
)

url, key = sys.argv[1:]
anyone = Client(base_url=url)
private = AuthenticatedClient(base_url=url, token=key, prefix="", auth_header_name="X-API-Key")
rates = AuthenticatedClient(base_url=url, token=key, prefix="", auth_header_name="api_key")


def transactions() -> None:
    amounts: list[float | str] = ["999999999999.999999", 1500, 12.5]
    for number, amount in enumerate(amounts):
        sent = TransactionRequest(
            transaction_id=f"python-{number}",
            source_account="a",
            destination_account="b",
            amount=amount,
            currency="EUR",
        )
        response = receive_transaction.sync_detailed(client=anyone, body=sent)
        assert isinstance(response.parsed, Transaction), response
        assert response.parsed.status is TransactionStatus.PROCESSING
        assert f'"amount":{amount},'.encode() in response.content, response.content
    found = get_transaction.sync("python-0", client=private, wait=30.0)
    assert isinstance(found, Transaction), found
    assert found.status is TransactionStatus.PROCESSED and found.processed_at is not None, found
    listed = list_transactions.sync(client=private, status=ListTransactionsStatus.PROCESSED, limit=1)
    assert isinstance(listed, list) and listed[0].status is TransactionStatus.PROCESSED, listed
    wrong = TransactionRequest("", "a", "b", "1.0000001", "EURO")
    refused = receive_transaction.sync(client=anyone, body=wrong)
    assert isinstance(refused, Problem) and isinstance(refused.detail, list), refused
    assert [failure.type_ for failure in refused.detail] == ["string_too_short", "decimal_max_places", "value_error"]


def items() -> None:
    user = register_user.sync(client=anyone, body=RegisterRequest("ada@example.com", "correct horse", "Ada"))
    assert isinstance(user, User), user
    token = log_in.sync(client=anyone, body=LoginRequest("ada@example.com", "correct horse"))
    assert isinstance(token, AccessToken), token
    owner = AuthenticatedClient(base_url=url, token=token.access_token)
    created = create_item.sync(client=owner, body=ItemRequest(title="Kettle", price_cents="4900"))
    assert isinstance(created, Item), created
    assert created.price_cents == 4900 and created.description is None and created.owner.full_name == "Ada", created
    found = get_item.sync(created.id, client=anyone)
    assert found == created, found
    listed = list_items.sync(client=anyone, skip=0, limit=10)
    assert listed == [created], listed


def interest_rates() -> None:
    saved = submit_assets.sync(client=rates, body=[AssetRequest("id-1", "100"), AssetRequest("id-2", 10)])
    assert isinstance(saved, Outcome), saved
    current = get_interest_rate.sync(client=rates)
    assert isinstance(current, InterestRate) and current.interest_rate == "55.0", current


def probes() -> None:
    probe = set_probe_up.sync(client=anyone, body=SetupRequest(5, 5, SetupRequestDirection.NORTH))
    assert isinstance(probe, Probe), probe
    moved = move_probe.sync(client=anyone, body=MoveRequest(probe.id, "MRM"))
    assert isinstance(moved, Probe) and (moved.x, moved.y) == (1, 1), moved
    listed = check_probes.sync(client=anyone, limit=10)
    assert isinstance(listed, ProbeList) and listed.probes == [moved], listed


transactions()
items()
interest_rates()
probes()
print("all checks passed")

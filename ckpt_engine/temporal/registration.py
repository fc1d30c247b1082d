"""Making the search attributes known to a namespace, before a workflow would fail without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from ..errors import InvalidRequest
from .search_attributes import KEYS

if TYPE_CHECKING:
    from temporalio.client import Client

__all__ = ["register"]


async def register(client: Client) -> list[str]:
    """Register the attributes that the namespace lacks; return their names.

    Raises:
        InvalidRequest: They are missing and this client may not register them; says how to.
    """
    names = [key.name for key in KEYS]
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = [name for name in names if name not in known.custom_attributes]
        if missing:
            keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword)
                )
            )
    except RPCError as err:
        if err.status == RPCStatusCode.ALREADY_EXISTS:
            return []
        how = " ".join(f"--name {name} --type Keyword" for name in names)
        raise InvalidRequest(
            f"the search attributes {', '.join(names)} cannot be registered in namespace "
            f"{client.namespace!r} ({err.message}); register them yourself, with "
            f"`temporal operator search-attribute create {how}` or in the cloud's console, or "
            "leave search_attributes out"
        ) from None
    return missing

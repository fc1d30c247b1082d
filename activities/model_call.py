"""One request to a model, and what its failures mean to Temporal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn, cast

from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, infer_model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from temporalio.exceptions import ApplicationError

from .conversation import answer_of, in_order

__all__ = ["ModelCatalogue", "ask_model", "unusable"]

_ADVICE: list[tuple[type[ModelAPIError], str, str]] = [
    (
        ModelAuthenticationError,
        "model-refused-key",
        "set the provider's API key where the worker runs, then rewind",
    ),
    (ModelQuotaExceededError, "model-quota", "the account's quota or credit is used up"),
    (
        ModelNotFoundError,
        "model-not-found",
        "check the model's name and the base URL (openai: speaks the Responses API; for a server "
        "that only has chat completions write openai-chat:)",
    ),
    (
        ModelContextWindowExceededError,
        "model-context-window",
        "the conversation is too long for this model: branch with another model or rewind",
    ),
    (ModelRequestRejectedError, "model-rejected", "the provider cannot accept this request"),
]
# Retries are Temporal's; a client gives up before the step is timed out, and some refuse to wait
# for a whole response without being told how long.
_CLIENT = {"max_retries": 0, "timeout": 540.0}
_TRANSIENT = {408, 409, 425, 429}


class ModelCatalogue:
    """Models by name: given objects first, then whatever pydantic-ai knows under that name."""

    def __init__(self, named: Mapping[str, Model]) -> None:
        self._models = dict(named)

    def get(self, name: str) -> Model:
        """Return the model of this name; the same object each time.

        Raises:
            ApplicationError: Non-retryable; no such model, no key, or a missing extra.
        """
        if name not in self._models:
            try:
                self._models[name] = infer_model(name)
            except ImportError as err:
                provider = name.partition(":")[0]
                unusable(
                    "model-not-installed",
                    f"the model {name} needs a library that is not installed ({err}): "
                    f"pip install 'pydantic-ai-slim[{provider}]' where the worker runs",
                    err,
                )
            except Exception as err:  # noqa: BLE001 - providers' own client errors share no base class
                why = str(err).partition(" To try Pydantic AI")[
                    0
                ]  # its advice is for other callers
                unusable("model-unusable", f"the worker cannot use the model {name}: {why}", err)
        return self._models[name]


async def ask_model(
    model: Model,
    messages: Sequence[ModelMessage],
    *,
    instructions: str,
    settings: Mapping[str, Any],
    tools: Sequence[ToolDefinition],
) -> ModelResponse:
    """Return the model's response to a conversation.

    Retries are Temporal's, so that each is seen: the provider's own client makes none unless
    ``settings["max_retries"]`` says so.

    Raises:
        ApplicationError: The request failed. Non-retryable where the same request would fail
            again; otherwise with the delay that the provider asked for, if it did.
    """
    parameters = ModelRequestParameters(
        function_tools=list(tools),
        instruction_parts=[InstructionPart(content=instructions)] if instructions else None,
    )
    try:
        response = await model_request(
            model,
            in_order(messages),
            model_settings=cast(ModelSettings, {**_CLIENT, **settings}),
            model_request_parameters=parameters,
        )
    except ModelAPIError as err:
        raise _failure(err) from err
    except UnexpectedModelBehavior as err:
        raise ApplicationError(
            f"the model's response could not be read: {err}", type="model-malformed"
        ) from err
    except UserError as err:
        unusable("model-unusable", f"the request cannot be made: {err}", err)
    if not response.tool_calls and answer_of(response) is None:
        raise ApplicationError("the model's response was empty", type="model-empty")
    return response


def unusable(kind: str, message: str, cause: BaseException) -> NoReturn:
    """Raise a failure that no retry mends."""
    raise ApplicationError(message, type=kind, non_retryable=True) from cause


def _failure(err: ModelAPIError) -> ApplicationError:
    for category, kind, advice in _ADVICE:
        if isinstance(err, category):
            return ApplicationError(f"{_short(err)}: {advice}", type=kind, non_retryable=True)
    if isinstance(err, ModelHTTPError):
        hopeless = err.status_code < 500 and err.status_code not in _TRANSIENT
    else:
        hopeless = False
    delay = None if err.retry_after is None else timedelta(seconds=max(0.0, err.retry_after))
    return ApplicationError(
        _short(err), type="model-unavailable", non_retryable=hopeless, next_retry_delay=delay
    )


def _short(err: ModelAPIError) -> str:
    if isinstance(err, ModelHTTPError):
        body = err.body if isinstance(err.body, Mapping) else {}
        said = body.get("message") or err.body or ""
        return f"{err.model_name} answered {err.status_code} {str(said)[:500]}".rstrip()
    return f"{err.model_name}: {err.message[:500]}"

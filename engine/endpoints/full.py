"""Full fine-tuning through the official SDK, whose own methods create adapters (LoRA) only.

What comes back is the SDK's own TrainingClient, so everything after creation is as it always is. Servers that don't
know the request's extra field refuse it. Knows the SDK; nothing of methods or data.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import concurrent.futures

    import tinker


def create_full_training_client(
    service_client: tinker.ServiceClient, base_model: str, user_metadata: dict[str, Any] | None = None
) -> concurrent.futures.Future[tinker.TrainingClient]:
    """A future of a training client that trains a copy of all of the base's weights, in float32.

    `.result()` raises the SDK's errors: a 4xx where the server can't, its own words where the memory wouldn't suffice.
    Checkpoints for sampling are whole model folders. Advised learning rates are about a tenth of LoRA's.
    """
    from tinker import types
    from tinker.lib.api_future_impl import _APIFuture
    from tinker.lib.client_connection_pool_type import ClientConnectionPoolType
    from tinker.lib.public_interfaces.training_client import TrainingClient, fetch_training_info

    holder = service_client.holder
    session_id, number = holder.get_session_id(), holder.get_training_client_id()
    body = {
        "session_id": session_id,
        "model_seq_id": number,
        "base_model": base_model,
        "full": True,
        "user_metadata": user_metadata or {},
        "type": "create_model",
    }

    async def create() -> TrainingClient:
        started = time.time()

        async def send() -> types.UntypedAPIFuture:
            with holder.aclient(ClientConnectionPoolType.TRAIN) as client:
                return await client.post("/api/v1/create_model", body=body, cast_to=types.UntypedAPIFuture)

        promise = await holder.execute_with_retries(send)
        made = await _APIFuture(
            types.CreateModelResponse, holder, promise, request_start_time=started, request_type="CreateModel"
        ).result_async()
        return TrainingClient(holder, model_seq_id=number, model_id=made.model_id, info=await fetch_training_info(holder, made.model_id))

    return holder.run_coroutine_threadsafe(create())

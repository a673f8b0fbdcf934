"""The JSON bodies that clients send, as the official SDK writes them. Unknown fields are ignored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.errors import DataError
from engine.server.model import MAX_RANK
from engine.server.trainer import AdamParams
from engine.server.weights import FullSpec, LoraSpec


class CreateSession(BaseModel):
    tags: list[str] = []
    user_metadata: dict[str, Any] | None = None
    sdk_version: str = ""
    project_id: str | None = None
    display_name: str | None = None


class Heartbeat(BaseModel):
    session_id: str


class LoraConfig(BaseModel):
    rank: int
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


class OptimizerConfig(BaseModel):
    type: str = "adamw"


class CreateModel(BaseModel):
    session_id: str
    model_seq_id: int
    base_model: str
    lora_config: LoraConfig | None = None
    full: bool = False  # ours: the API's own requests make adapters only
    optimizer_config: OptimizerConfig = OptimizerConfig()
    user_metadata: dict[str, Any] | None = None

    def spec(self) -> LoraSpec | FullSpec:
        """What is to be trained. Raises DataError."""
        if self.optimizer_config.type != "adamw":
            raise DataError("this server's optimizer is AdamW", "Leave optimizer_config out.", where="optimizer_config")
        lora = self.lora_config
        if self.full and lora is None:
            return FullSpec()
        if lora is None or self.full:
            raise DataError("this server trains either an adapter or everything", "Send a lora_config, or full.", where="lora_config")
        if not 1 <= lora.rank <= MAX_RANK:
            raise DataError(f"LoRA rank {lora.rank} is out of range", f"Use 1 to {MAX_RANK}.", where="lora_config")
        return LoraSpec(lora.rank, lora.train_mlp, lora.train_attn, lora.train_unembed)


class GetInfo(BaseModel):
    model_id: str


class AdamFields(BaseModel):
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


class OptimStep(BaseModel):
    model_id: str
    seq_id: int | None = None
    adam_params: AdamFields | None = None
    optimizer_params: dict[str, Any] | None = None

    def adam(self) -> AdamParams:
        """Raises DataError for another optimizer's parameters."""
        if self.optimizer_params is not None:
            raise DataError("this server's optimizer is AdamW", "Send AdamParams.", where="optimizer_params")
        return AdamParams(**(self.adam_params or AdamFields()).model_dump()).checked()


class SaveWeights(BaseModel):
    model_id: str
    path: str | None = None
    seq_id: int | None = None
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] | None = None
    age_encryption_recipients: list[str] | None = None


class SaveForSampler(SaveWeights):
    sampling_session_seq_id: int | None = None
    kind: Literal["snapshot", "inflight"] = "snapshot"


class FinishReason(BaseModel):
    type: Literal["success", "errored", "interrupted"] = "success"


class FinishSession(BaseModel):
    reason: FinishReason = FinishReason()
    detail: str | None = None


class TinkerPath(BaseModel):
    tinker_path: str


class TimeToLive(BaseModel):
    ttl_seconds: int | None


class LoadWeights(BaseModel):
    path: str
    optimizer: bool
    model_id: str | None = None
    seq_id: int | None = None
    session_id: str | None = None
    model_seq_id: int | None = None
    base_model: str | None = None
    user_metadata: dict[str, Any] | None = None


class CreateSamplingSession(BaseModel):
    session_id: str
    sampling_session_seq_id: int
    base_model: str | None = None
    model_path: str | None = None


class PromptChunk(BaseModel):
    type: str = "encoded_text"
    tokens: list[int] = []


class Prompt(BaseModel):
    chunks: list[PromptChunk] = []


class SamplingParams(BaseModel):
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[int] | list[str] | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0


class TensorBody(BaseModel):
    """Sparse rows (CSR) where the indices are given."""

    data: list[int] | list[float]
    dtype: str
    shape: list[int] | None = None
    sparse_crow_indices: list[int] | None = None
    sparse_col_indices: list[int] | None = None


class Sample(BaseModel):
    prompt: Prompt
    sampling_params: SamplingParams = SamplingParams()
    num_samples: int = 1
    sampling_session_id: str | None = None
    seq_id: int | None = None
    base_model: str | None = None
    model_path: str | None = None
    prompt_logprobs: bool | None = None
    prompt_logprobs_last_n: int | None = Field(default=None, ge=1)
    topk_prompt_logprobs: int = 0
    topk_sample_logprobs: int = 0
    prompt_alt_tokens_k: int = 0
    target_prompt_logprobs: TensorBody | None = None

    def tokens(self) -> list[int]:
        """Raises DataError for chunks that aren't text."""
        if any(chunk.type != "encoded_text" for chunk in self.prompt.chunks):
            raise DataError("only text prompts are supported here", "Send tokens.", where="prompt")
        return [token for chunk in self.prompt.chunks for token in chunk.tokens]


class SearchSessions(BaseModel):
    session_id: str | None = None
    project_ids: list[str] | None = None
    user_metadata: dict[str, str] = {}
    display_name: str | None = None
    statuses: list[dict[str, Any]] | None = None
    limit: int = Field(default=50, ge=1, le=200)
    cursor: dict[str, Any] | None = None


class JoinSamplingSession(BaseModel):
    sampling_session_id: str


class FuturesTarget(BaseModel):
    sampling_session_id: str
    cloned_sampler_id: int = 0


class RetrieveFutures(BaseModel):
    target: FuturesTarget
    prev_cursor: int = 0
    timeout: float | None = Field(default=None, allow_inf_nan=False)
    retrieved_request_ids: list[str] = []


class CancelFuture(BaseModel):
    request_id: str


class RetrieveFuture(BaseModel):
    request_id: str
    allow_metadata_only: bool = False

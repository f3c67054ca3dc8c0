"""MLServer, with adaptive batching of up to 64 within 5 ms, in process."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import load as load_model


class Predict(MLModel):
    async def load(self) -> bool:
        self._model, self._device = load_model(), asyncio.Lock()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        async with self._device:  # one device, as for all
            result = await asyncio.to_thread(self._model, rows)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", result)])

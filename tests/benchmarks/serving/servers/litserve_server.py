"""LitServe, with batches of up to 64 that wait up to 5 ms."""

import sys

import litserve
import numpy as np
from model import load


class Predict(litserve.LitAPI):
    def setup(self, device):
        self.model = load()

    def decode_request(self, request):
        return np.asarray(request["x"][0], dtype=np.float32)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.model(x)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return [output.tolist()]


if __name__ == "__main__":
    server = litserve.LitServer(
        Predict(max_batch_size=64, batch_timeout=0.005), accelerator="cpu", workers_per_device=1
    )
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")

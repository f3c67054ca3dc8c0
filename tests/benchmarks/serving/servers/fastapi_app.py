"""FastAPI, which does not batch."""

import threading

import numpy as np
from fastapi import FastAPI
from model import load
from pydantic import BaseModel

app = FastAPI()
model = load()
lock = threading.Lock()


class Rows(BaseModel):
    x: list[list[float]]


@app.post("/predict")
def predict(body: Rows) -> list[list[float]]:
    with lock:  # one device, as for all
        return model(np.asarray(body.x, dtype=np.float32)).tolist()

"""Flask with Flask-Session, as in its documentation."""

import json
import os

from flask import Flask, session
from flask_session import Session
from redis import Redis

app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(os.environ["REDIS_URL"]))
Session(app)


@app.get("/plain")
def plain():
    return "1"


@app.get("/start")
def start():
    session.update(json.loads(os.environ["PAYLOAD"]))
    return str(session["count"])


@app.get("/count")
def count():
    session["count"] += 1
    return str(session["count"])


@app.get("/value")
def value():
    return str(session["count"])

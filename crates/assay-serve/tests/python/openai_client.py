#!/usr/bin/env python3
"""The official OpenAI Python client against a running server.

    openai_client.py BASE_URL CHAT_MODEL EMBEDDING_MODEL [QUESTION]

Prints a transcript and ends with "all passed"; any surprise is an exception. Needs: openai (which brings pydantic).
"""
import sys
from typing import Literal

import openai
import pydantic

base_url, chat_model, embedding_model = sys.argv[1:4]
question = sys.argv[4] if len(sys.argv) > 4 else "How do I reset the sensor?"
client = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120)
messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]


def section(title):
    print(f"\n== {title}")


section("models")
listed = [m.id for m in client.models.list()]
print(listed)
assert chat_model in listed and embedding_model in listed
assert client.models.retrieve(chat_model).object == "model"

section("chat")
answer = client.chat.completions.create(model=chat_model, messages=messages, max_tokens=64, temperature=0, seed=1)
choice = answer.choices[0]
print(choice.message.content)
assert choice.message.role == "assistant" and choice.message.content
assert choice.finish_reason in ("stop", "length")
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

section("annotations")
for annotation in choice.message.annotations or []:
    print(annotation.type, annotation.url_citation.title, annotation.quote)
    cited = choice.message.content[annotation.url_citation.start_index : annotation.url_citation.end_index]
    assert cited in ("", f"[{annotation.index}]"), cited

section("stream")
streamed, role, reason, usage = "", None, None, None
for chunk in client.chat.completions.create(
    model=chat_model, messages=messages, max_tokens=64, temperature=0, seed=1, stream=True,
    stream_options={"include_usage": True},
):
    if chunk.usage:
        usage = chunk.usage
    for c in chunk.choices:
        role = c.delta.role or role
        reason = c.finish_reason or reason
        streamed += c.delta.content or ""
print(streamed)
assert (role, streamed, usage) == ("assistant", choice.message.content, answer.usage), usage
assert reason == choice.finish_reason

section("stream helper")
with client.chat.completions.stream(model=chat_model, messages=messages, max_tokens=64, temperature=0, seed=1) as events:
    for _ in events:
        pass
    try:
        final = events.get_final_completion()
    except openai.LengthFinishReasonError as cut:
        assert choice.finish_reason == "length"
        final = cut.completion
    assert final.choices[0].message.content == choice.message.content
print("same text")

section("log-probabilities")
told = client.chat.completions.create(
    model=chat_model, messages=messages, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2,
)
told = told.choices[0].logprobs.content
print([(t.token, round(t.logprob, 2)) for t in told])
assert told and all(len(t.top_logprobs) == 2 and t.logprob <= 0 for t in told)

section("given forms")


class Reply(pydantic.BaseModel):
    # The example is for servers without a model.
    model_config = {"json_schema_extra": {"examples": [{"verdict": "yes", "confidence": 3}]}}
    verdict: Literal["yes", "no", "größer"]
    confidence: int = pydantic.Field(ge=0, le=9)


formed = client.chat.completions.parse(model=chat_model, messages=messages, max_tokens=64, response_format=Reply)
print(formed.choices[0].message.parsed)
assert formed.choices[0].finish_reason == "stop" and isinstance(formed.choices[0].message.parsed, Reply)
choices = ["perhaps not", "perhaps"]
for seed in range(3):
    formed = client.chat.completions.create(
        model=chat_model, messages=messages, max_tokens=64, temperature=1, seed=seed,
        extra_body={"structured_outputs": {"choice": choices}},
    )
    print(formed.choices[0].message.content)
    assert formed.choices[0].message.content in choices

section("embeddings")
# The client asks for base64 by default and decodes it.
default = client.embeddings.create(model=embedding_model, input=["first text", "second, longer text"])
floats = client.embeddings.create(model=embedding_model, input="first text", encoding_format="float")
print(len(default.data), "vectors of", len(default.data[0].embedding))
assert [d.index for d in default.data] == [0, 1]
assert all(abs(a - b) < 1e-6 for a, b in zip(default.data[0].embedding, floats.data[0].embedding))

section("errors")
for make, expected, code in [
    (lambda: client.chat.completions.create(model="no-such-model", messages=messages), openai.NotFoundError, "model_not_found"),
    (lambda: client.chat.completions.create(model=chat_model, messages=[]), openai.BadRequestError, None),
    (lambda: client.chat.completions.create(model=chat_model, messages=messages, n=2), openai.BadRequestError, "unsupported_parameter"),
    (lambda: client.chat.completions.create(model=chat_model, messages=messages, response_format={"type": "xml"}), openai.BadRequestError, None),
    (lambda: client.chat.completions.create(model=chat_model, messages=[{"role": "robot", "content": "x"}]), openai.BadRequestError, None),
]:
    try:
        make()
    except expected as error:
        print(error.status_code, error.code, error.param, error.body["message"])
        assert error.code == code, error.code
        assert error.request_id
    else:
        raise AssertionError("no error")

print("\nall passed")

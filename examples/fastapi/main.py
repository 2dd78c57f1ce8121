"""A FastAPI application that sends tasks and waits for them without blocking its event loop.

uvicorn main:api
"""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from tasks import add, app, report

api = FastAPI()


@api.get("/sum")
async def sum_of(x: int, y: int) -> dict[str, int]:
    """Have a worker add two numbers, and answer with what it says."""
    result = await add.adelay(x, y)
    try:
        async with asyncio.timeout(30):
            return {"sum": await result}
    except TimeoutError:
        raise HTTPException(504, f"no worker has done {result.id} in time") from None


@api.post("/reports", status_code=202)
async def begin(pages: int) -> dict[str, str]:
    """Begin a report; its progress can be followed."""
    result = await report.adelay(pages)
    return {"id": result.id}


@api.get("/reports/{id}/events")
async def follow(id: str) -> StreamingResponse:
    """Tell how a report comes along, as server-sent events."""
    return StreamingResponse(events(id), media_type="text/event-stream")


async def events(id: str) -> AsyncIterator[str]:
    """Yield an event for each step of a report, and one for its end."""
    async for update in app.AsyncResult(id).updates():
        if update.progress is not None:
            data = {"done": update.progress.done, "total": update.progress.total}
            yield f"event: progress\ndata: {json.dumps(data)}\n\n"
        elif update.ready:
            value = repr(update.value) if update.failed else update.value
            yield f"event: {update.state.lower()}\ndata: {json.dumps(value)}\n\n"

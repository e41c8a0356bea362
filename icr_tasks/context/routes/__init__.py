"""Routes: settings that look at a first answer and then decide whether the whole context is read. One file a
route.

A route is a class with a sentence (`asks`) that stands before the prompt of its first step, and a method that
reads the first answer. With `retrieves=True` its first step is `rag@amount`, with all options of `rag`:

    @ROUTES.register("mine", retrieves=True, params={"tries": Whole(1, low=1)})
    class Mine(Route): ...

makes `route:mine@4k,hybrid,tries=2`. The second step is the setting `full`.
"""

from __future__ import annotations

from .base import Route as Route

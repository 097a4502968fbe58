"""An OpenAI-compatible server: an HTTP front process, and one worker process for each model.

    options.py     what `herd serve` can be told; configuration.py, toml_keys.py and show.py: as a file
    server.py      run: the socket, the front, the workers, from the first line printed to the exit status
    lifecycle.py   loading, serving, draining, stopped
    presence.py    what `herd ps` shows
    wire.py        frames between front and worker
    front/         HTTP: connections, keys, admission, models, replies, errors, metrics, log, the application itself
    api/           one module per API: the requests it takes and the documents it answers with
    worker/        the process that holds a model: text in, text out

A request is admitted by the front before its body is parsed; all work on text (tokenizing, templates, schemas) is
the worker's, so the front always answers. Nothing here is imported by the core package: it is the extra `serve`.
"""

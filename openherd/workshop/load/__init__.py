"""Load on an OpenAI-compatible server, and how it bears it: `herd bench --server URL`.

    options.py   what is asked for: arrivals, lengths, limits
    plan.py      when requests arrive and what they say, drawn from a seed before anything is sent
    target.py    the server's address, and a request as bytes
    exchange.py  one streamed chat completion on a connection of its own, with the moment of every piece
    events.py    server-sent events out of pieces, within bounds
    run.py       the load itself: open loop or closed loop
    summary.py   percentiles, throughput, goodput
    report.py    the document and the table

Times count from the moment a request was due, not from when this client got around to sending it: otherwise a slow
server delays the very requests that would show its slowness (coordinated omission; Tene, "How NOT to Measure
Latency", 2013). Needs the HTTP parser `httptools`, of the extra `serve`. It contacts the address it was given and no
other: no redirects, no proxies.

Not covered: HTTP/2, other APIs than chat completions, several machines that load one server.
"""

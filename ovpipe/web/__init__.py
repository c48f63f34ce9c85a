"""The page of a run, in a process of its own: pages, JSON, Prometheus metrics, live pictures.

guard     who may ask what: hosts, methods, token, headers of every answer. No I/O
figures   two readings -> rates, saturation, latencies. Pure
metrics   a reading -> Prometheus' text format. Pure
picture   a frame -> JPEG, with its boxes
live      the pictures of an edge, encoded once for all who watch, and only while somebody does
watch     reads the run twice a second; keeps some minutes of history
app       the routes
static/   the page: HTML, CSS and JavaScript, read once at the start
"""

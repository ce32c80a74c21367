"""`anomaly serve`: detectors behind HTTP, by the Open Inference Protocol v2 and a plain ``POST /score``.

protocol.py    what requests and answers look like, JSON and binary
detectors.py   which detectors are served, loaded anew when their files change
workers.py     a bounded number of requests inside, a few threads that judge, time-outs
metrics.py     what Prometheus reads
access.py      API keys
log.py         one JSON line for each request
app.py         the routes
launch.py      the command
"""

"""`anomaly serve`: detectors behind HTTP, by the Open Inference Protocol v2 and a plain
``POST /score``.

connections.py what a connection may cost before it is known whose it is
unread.py      closes behind an answer that came before the end of its request
bodies.py      reads a body, and the file out of a form
protocol.py    what requests and answers look like, JSON and binary
numbers.py     numbers in JSON, a piece at a time
judging.py     one image's result, and whose fault it is where there is none
detectors.py   which detectors are served, loaded anew when their files change
workers.py     a bounded number of requests inside, a few threads that judge, time-outs
metrics.py     what Prometheus reads
access.py      API keys
log.py         JSON lines on stderr
request_log.py the line of each request, its key, its place in the metrics
answers.py     what is answered, as the OpenAPI description says it
names.py       what a served detector is called
service.py     what the routes work with
app.py         the routes
launch.py      the command
triton.py      a detector as a model repository of Triton
"""

"""A station on a line: images from cameras, folders, HTTP and MQTT, results to controllers, brokers
and people.

settings.py  what STATION.toml says       reading.py   reads and checks it
run.py       the whole station            parts.py     its sources and sinks
check.py     tries them                   health.py    whether one of them works
backlog.py   images that wait             judge.py     image -> result, safe in the ledger
ledger.py    SQLite: results, outbox      results.py   a result, and what it means
units.py     views -> one result          pictures.py  images that are kept, thumbnails
live.py      what a page shows            addresses.py addresses and secrets

sources             folders.py posts.py mqtt.py video.py genicam.py; triggers.py: of a camera
message sinks       lines.py review.py mqtt.py webhook.py; deliver.py: all, in order, at least once
state sinks         opcua.py modbus.py; board.py: the newest result, never an old one
"""

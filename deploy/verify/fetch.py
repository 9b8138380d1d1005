"""Ask a URL, with patience while it comes up; fails unless the answer holds a text."""

import argparse
import sys
import time
import urllib.error
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--data", type=str.encode)
parser.add_argument("--holds", required=True)
asked = parser.parse_args()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
body = "nothing"
for _ in range(30):
    try:
        body = opener.open(asked.url, data=asked.data, timeout=30).read().decode()
        break
    except (urllib.error.URLError, ConnectionError) as error:
        body = f"{error}"
        time.sleep(1)
if asked.holds not in body:
    sys.exit(f"{asked.url} answered {body[:300]!r}; expected it to hold {asked.holds!r}")

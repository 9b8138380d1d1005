"""Ask a URL until the answer holds a text; fails where it never does."""

import argparse
import sys
import time
import urllib.error
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--data", type=str.encode)
parser.add_argument("--holds", required=True)
parser.add_argument("--tries", type=int, default=30, help="a second apart")
asked = parser.parse_args()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
body = "nothing"
for _ in range(asked.tries):
    try:
        body = opener.open(asked.url, data=asked.data, timeout=30).read().decode()
    except (urllib.error.URLError, ConnectionError) as error:
        body = f"{error}"
    if asked.holds in body:
        break
    time.sleep(1)
else:
    sys.exit(f"{asked.url} answered {body[:300]!r}; expected it to hold {asked.holds!r}")

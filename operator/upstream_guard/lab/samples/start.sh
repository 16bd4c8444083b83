#!/bin/sh
# First process of the sample servers' containers: waits START_DELAY_SECONDS, then becomes the init
# of the server named as argument. Servers run with their defaults, which is what users have.
set -eu
trap 'exit 143' TERM
sleep "${START_DELAY_SECONDS:-0}" &
wait $!
trap - TERM
port="${PORT:-8080}"
case "$1" in
  node) exec tini -- node /samples/node/server.js ;;
  gunicorn) exec gunicorn --chdir /samples/gunicorn --bind "0.0.0.0:$port" app:app ;;
  uvicorn) exec uvicorn --app-dir /samples/uvicorn --host 0.0.0.0 --port "$port" app:app ;;
  *) echo "no sample server '$1'; there are node, gunicorn and uvicorn" >&2; exit 2 ;;
esac

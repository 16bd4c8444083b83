// Node.js as most teams run it: `http` with its defaults, among them keep-alive for 5 s (before
// version 26), and no handler for SIGTERM. As a container's first process it would then ignore the
// signal, so the image starts it behind an init.
'use strict';

const http = require('node:http');
const os = require('node:os');

const port = Number(process.env.PORT || 8080);
const pod = process.env.POD_NAME || os.hostname();

const server = http.createServer((request, response) => {
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ pod, status: 200 }) + '\n');
});

server.listen(port);

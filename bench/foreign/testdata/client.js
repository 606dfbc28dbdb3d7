// Uploads half a megabyte by both protocols, compares what the app says it got, and
// upgrades a connection. Arguments: the front's URL, and the address to connect to.
'use strict';
const [base, address] = process.argv.slice(2);
const url = new URL(base);
const crypto = require('node:crypto');
const https = require('node:https');
const http2 = require('node:http2');
const tls = require('node:tls');
const payload = crypto.randomBytes(256 << 10).toString('hex');
const lookup = (name, options, done) => options.all ? done(null, [{address, family: 4}]) : done(null, address, 4);

function judge(label, status, text) {
  if (status !== 200 || JSON.parse(text).data !== payload) throw new Error(`${label}: ${status}, ${text.length} bytes`);
  console.log(`${label} ok`);
}

function overHTTP1() {
  return new Promise((resolve, reject) => {
    const request = https.request(new URL('/post', base), {method: 'POST', lookup, headers: {'content-type': 'text/plain'}}, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (piece) => { text += piece; }).on('end', () => {
        try { judge('http/1.1', answer.statusCode, text); resolve(); } catch (e) { reject(e); }
      });
    }).on('error', reject);
    request.end(payload);
  });
}

function overHTTP2() {
  return new Promise((resolve, reject) => {
    const session = http2.connect(base, {lookup}).on('error', reject);
    const request = session.request({':method': 'POST', ':path': '/post', 'content-type': 'text/plain'});
    let status, text = '';
    request.on('response', (fields) => { status = fields[':status']; }).on('error', reject);
    request.setEncoding('utf8').on('data', (piece) => { text += piece; }).on('end', () => {
      session.close();
      try { judge('http/2', status, text); resolve(); } catch (e) { reject(e); }
    });
    request.end(payload);
  });
}

function upgrade() {
  return new Promise((resolve, reject) => {
    const key = crypto.randomBytes(16).toString('base64');
    const want = crypto.createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    const socket = tls.connect({host: address, port: url.port, servername: url.hostname, ALPNProtocols: ['http/1.1']}, () => {
      socket.write(`GET /websocket/echo HTTP/1.1\r\nHost: ${url.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`);
    }).on('error', reject);
    let seen = Buffer.alloc(0), switched = false;
    socket.on('data', (piece) => {
      seen = Buffer.concat([seen, piece]);
      const end = seen.indexOf('\r\n\r\n');
      if (!switched && end >= 0) {
        const head = seen.subarray(0, end).toString();
        if (!head.startsWith('HTTP/1.1 101') || !head.includes(want)) return reject(new Error(head));
        switched = true;
        seen = seen.subarray(end + 4);
        socket.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69])); // "hi", masked with zeros
      }
      if (switched && seen.length >= 4) {
        if (!seen.equals(Buffer.from([0x81, 2, 0x68, 0x69]))) return reject(new Error(seen.toString('hex')));
        console.log('websocket ok');
        socket.destroy();
        resolve();
      }
    });
  });
}

overHTTP1().then(overHTTP2).then(upgrade).catch((e) => { console.error(e); process.exit(1); });

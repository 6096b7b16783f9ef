// Real image servers behind the testbed's canvas service: pictures, errors, conditions and ranges as others serve them.
import assert from 'node:assert/strict';
import { request as http } from 'node:http';
import { request as https } from 'node:https';
import { after, before, describe, test } from 'node:test';
import sharp from 'sharp';
import { expired, journey, library, sees, shot } from '../viewers/reading.mjs';
import { VIEWERS } from '../viewers/viewers.mjs';
import { world } from '../viewers/world.mjs';
import { iipsrv } from './iipsrv.mjs';
import { processor } from './processor.mjs';

const HOLDINGS = ['--book', 'obj/book:3'];
const [WIDTH, HEIGHT] = [1200, 1600];

/** Asks iiif-mender under the name that viewers know, or any server that `to` names. */
function ask(it, path, { method = 'GET', headers = {}, to } = {}) {
  const name = new URL(it.name);
  const [host, port] = to ? new URL(to).host.split(':') : it.mender.address.split(':');
  const tls = !to && name.protocol === 'https:';
  const options = { host, port, path, method, servername: name.hostname, rejectUnauthorized: false, agent: false,
    headers: { host: to ? new URL(to).host : name.host, ...headers } };
  return new Promise((answered, failed) => {
    const asked = (tls ? https : http)(options, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', failed);
      answer.on('end', () => answered({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) }));
    });
    asked.on('error', failed);
    asked.end();
  });
}

const KINDS = [
  { name: 'iipsrv', starts: iipsrv, version: 2, formats: ['jpg'],
    wrong: ['full/150,/0/default.bmp', 'full/nothing/0/default.jpg', 'full/150,/0/nothing.jpg'] },
  { name: 'iiif-processor 2', starts: processor, version: 2, formats: ['jpg', 'png', 'webp'], etags: true,
    wrong: ['9000,9000,10,10/full/0/default.jpg', 'full/0,/0/default.jpg', 'full/150,/0/nothing.jpg'] },
  { name: 'iiif-processor 3', starts: processor, version: 3, formats: ['jpg', 'png', 'webp'], etags: true,
    wrong: ['9000,9000,10,10/max/0/default.jpg', 'full/^0,/0/default.jpg', 'full/150,/0/nothing.jpg'] },
];

for (const mode of ['same name', 'another name']) {
  for (const kind of KINDS) {
    describe(`${kind.name} under ${mode}`, () => {
      let it;
      let id;
      let path;
      const whole = kind.version === 3 ? 'max' : 'full';
      before(async () => {
        // Nothing ahead of the reader. The pages behind are healed once in five seconds: on a machine that is slower
        // than that between two tests, their requests were counted as those of the page that a test asks for.
        it = await library(mode, HOLDINGS, { imageServer: kind.starts, config: 'ahead = 0' });
        // The canvas service asks this image server, through us where it can: that is how it comes by sizes.
        const images = mode === 'another name' ? `http://${it.mender.address}` : it.images.url;
        await it.bedDoes('image-server-url', `${images}/iiif/2`);
        id = it.pages[0].identifier;
        path = `/iiif/${kind.version}/${id}`;
      });
      after(() => it?.ends());

      test('info.json of an expired image comes with its size and its name', async () => {
        await expired(it, 'obj/book');
        const answer = await ask(it, `${path}/info.json`);
        assert.equal(answer.status, 200, String(answer.body));
        const info = JSON.parse(answer.body);
        assert.deepEqual([info.width, info.height], [WIDTH, HEIGHT]);
        if (mode === 'another name') assert.equal(info['@id'] ?? info.id, `${it.name}${path}`);
        assert.equal(answer.headers['access-control-allow-origin'], '*');
        assert.match(answer.headers['heal-status'], /^healed/);
      });

      test('sizes, tiles, rotations and formats of an expired image are pictures of the right size', async () => {
        const cases = [
          [`full/${whole}/0`, WIDTH, HEIGHT], ['full/150,/0', 150, 200], ['full/!300,300/0', 225, 300],
          ['0,0,512,512/512,512/0', 512, 512], ['1024,1024,176,576/176,/0', 176, 576], ['full/150,/90', 200, 150],
          ['square/100,/0', 100, 100], ['pct:0,0,50,50/300,/0', 300, 400],
        ];
        for (const format of kind.formats) {
          for (const [wanted, width, height] of format === 'jpg' ? cases : cases.slice(1, 3)) {
            await expired(it, 'obj/book');
            const answer = await ask(it, `${path}/${wanted}/default.${format}`);
            assert.equal(answer.status, 200, `${wanted}: ${answer.body}`);
            const seen = await sharp(answer.body).metadata();
            assert.deepEqual([seen.format, seen.width, seen.height], [{ jpg: 'jpeg' }[format] ?? format, width, height], wanted);
            const straight = await ask(it, `${path}/${wanted}/default.${format}`, { to: it.images.url });
            assert.ok(answer.body.equals(straight.body), `${wanted}: not the bytes of the image server`);
          }
        }
      });

      test('HEAD of an expired image says what GET says', async () => {
        const wanted = `${path}/full/150,/0/default.jpg`;
        await expired(it, 'obj/book');
        const head = await ask(it, wanted, { method: 'HEAD' });
        const get = await ask(it, wanted);
        const straight = await ask(it, wanted, { method: 'HEAD', to: it.images.url });
        assert.deepEqual([head.status, head.body.length], [200, 0]);
        for (const field of ['content-type', 'etag', 'last-modified', 'cache-control', 'access-control-allow-origin']) {
          assert.equal(head.headers[field], straight.headers[field], field);
          assert.equal(get.headers[field], straight.headers[field], field);
        }
        assert.equal(get.headers['access-control-allow-origin'], '*');
      });

      test('what a viewer has already is not sent again after an expiry', async () => {
        const wanted = `${path}/full/300,/0/default.jpg`;
        const { headers, body } = await ask(it, wanted, { to: it.images.url });
        const conditions = [headers['last-modified'] && { 'if-modified-since': headers['last-modified'] },
          headers.etag && { 'if-none-match': headers.etag }].filter(Boolean);
        assert.equal(conditions.length, kind.etags ? 2 : 1);
        for (const condition of conditions) {
          await expired(it, 'obj/book');
          const answer = await ask(it, wanted, { headers: condition });
          if (kind.etags) assert.equal(answer.status, 304, JSON.stringify(condition));
          if (answer.status === 304) assert.equal(answer.body.length, 0);
          // iipsrv compares dates only for an image that it has just opened; else it sends the picture again.
          else assert.deepEqual([answer.status, answer.body.equals(body)], [200, true]);
          await expired(it, 'obj/book');
          const [name] = Object.keys(condition);
          const other = { [name]: name === 'if-none-match' ? '"another"' : 'Mon, 01 Jan 2001 00:00:00 GMT' };
          assert.equal((await ask(it, wanted, { headers: other })).status, 200);
        }
      });

      test('a part of an expired image is what the image server makes of it', async () => {
        const wanted = `${path}/full/300,/0/default.jpg`;
        for (const range of ['bytes=10-99', 'bytes=-50', 'bytes=100000000-']) {
          await expired(it, 'obj/book');
          const headers = { range };
          const answer = await ask(it, wanted, { headers });
          const straight = await ask(it, wanted, { headers, to: it.images.url });
          assert.equal(answer.status, straight.status, range);
          assert.equal(answer.headers['content-range'], straight.headers['content-range']);
          assert.ok(answer.body.equals(straight.body));
          if (kind.etags) assert.equal(answer.status, range.endsWith('000-') ? 416 : 206);
        }
      });

      test('the bare identifier leads to info.json under the name that the viewer used', async () => {
        await expired(it, 'obj/book');
        const answer = await ask(it, path);
        assert.equal(answer.status, 303);
        const told = new URL(answer.headers.location);
        assert.equal(told.pathname, `${path}/info.json`);
        if (mode === 'another name') assert.equal(told.origin, it.name);
        assert.equal((await ask(it, told.pathname)).status, 200);
      });

      test('twenty viewers of an expired image are one canvas request', async () => {
        await expired(it, 'obj/book');
        await it.bedDoes('clear-counts');
        const wanted = (_, at) => ask(it, `${path}/full/${100 + at},/0/default.jpg`);
        const answers = await Promise.all(Array.from({ length: 20 }, wanted));
        assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
        while (await it.heals() > 0) await new Promise((soon) => setTimeout(soon, 50));
        const { counts } = await it.state();
        const { visits, rebuilds, register } = counts;
        const variants = counts.variants ?? 0;
        const all = JSON.stringify({ visits, rebuilds, register, variants });
        assert.ok(rebuilds <= 1 && visits <= 1 && register <= 1 && variants <= 1, all);
      });

      test('what is wrong or unknown is answered as the image server answers it', async () => {
        await it.bedDoes('register');
        const unknown = ['/info.json', `/full/${whole}/0/default.jpg`].map((rest) =>
          `/iiif/${kind.version}/00000000-0000-3000-8000-000000000000${rest}`);
        for (const wanted of [...kind.wrong.map((rest) => `${path}/${rest}`), ...unknown]) {
          const [answer, straight] = [await ask(it, wanted), await ask(it, wanted, { to: it.images.url })];
          assert.equal(answer.status, straight.status, wanted);
          assert.ok(answer.status >= 400, `${wanted}: ${answer.status}`);
          assert.ok(answer.body.equals(straight.body), wanted);
          assert.equal(answer.headers['access-control-allow-origin'], straight.headers['access-control-allow-origin']);
        }
        assert.equal((await ask(it, unknown[0])).status, 404);
      });

      if (kind.name === 'iipsrv') {
        test('a region that ends the image server is not healed, and the next picture comes', async () => {
          await it.bedDoes('register');
          assert.equal((await ask(it, `${path}/9000,9000,10,10/full/0/default.jpg`)).status, 502);
          const deadline = Date.now() + 30_000;
          let next;
          do next = await ask(it, `${path}/full/150,/0/default.jpg`); while (next.status !== 200 && Date.now() < deadline);
          assert.equal(next.status, 200);
        });
      }

      if (kind.version === 2) {
        // OpenSeadragon asks for `w,h` and the others for `w,`.
        for (const viewer of VIEWERS.slice(0, 2)) {
          test(`${viewer.name} reads an expired book`, async () => {
            await expired(it, 'obj/book');
            await journey(it, viewer, 'obj/book', async ({ tab, rests }) => {
              for (let number = 1; number <= 3; number++) {
                if (number > 1) {
                  await rests();
                  await it.bedDoes('evict-keys');
                  await viewer.next(tab);
                }
                await sees(it, viewer, tab, number);
              }
              await shot(it, viewer, tab, kind.name);
            });
          });
        }
      }
    });
  }
}

describe('an image server that says 500 or 400 for what it does not find', () => {
  for (const status of [500, 400]) {
    for (const statuses of [`[404, ${status}]`, '[404]']) {
      const heals = statuses !== '[404]';
      test(`${status} is ${heals ? 'healed where heal.statuses names it' : 'passed on where it does not'}`, async () => {
        const it = await world('another name', HOLDINGS, {
          config: `statuses = ${statuses}\n`, imageServer: (bed, pages) => processor(bed, pages, status),
        });
        try {
          await it.bedDoes('evict-keys');
          const answer = await ask(it, `/iiif/2/${it.pages[0].identifier}/full/150,/0/default.jpg`);
          assert.equal(answer.status, heals ? 200 : status);
          const nobody = await ask(it, '/iiif/2/00000000-0000-3000-8000-000000000000/info.json');
          assert.equal(nobody.status, status);
        } finally {
          await it.ends();
        }
      });
    }
  }
});

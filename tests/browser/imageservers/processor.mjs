// Samvera's iiif-processor (Image API 2.1 and 3.0) with a resolver that asks the canvas service, and a cache of files
// that npm's `send` serves: ETag, Last-Modified, Range and conditions are theirs, not ours.
import { createReadStream, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IIIFError, Processor } from 'iiif-processor';
import send from 'send';

const TYPES = { jpg: 'image/jpeg', png: 'image/png', webp: 'image/webp', gif: 'image/gif', json: 'application/ld+json' };

/** Starts it over the testbed's pictures. An identifier that nobody knows is answered with `unknown`. */
export async function processor(bed, pages, unknown = 404) {
  const folder = mkdtempSync(join(tmpdir(), 'iiif-mender-processor-'));
  const files = {};
  for (const [at, { base64, file }] of pages.entries()) {
    const jpeg = await (await fetch(`${bed.images}/iiif/2/${base64}/full/full/0/default.jpg`)).arrayBuffer();
    const path = join(folder, `page-${at}.jpg`);
    writeFileSync(path, Buffer.from(jpeg));
    files[base64] = path;
    files[file] = path;
  }

  /** The file behind an identifier. */
  async function file(id) {
    if (files[id]) return files[id];
    const answer = await fetch(`${bed.service}/iiif-service/resources/${id}/redirect`, { redirect: 'manual' });
    const found = files[answer.headers.get('location')];
    if (answer.status === 301 && found) return found;
    throw new IIIFError('no such image', { statusCode: answer.status < 500 ? unknown : 500 });
  }

  async function answer(request, reply) {
    const { headers } = request;
    const [, version, id, rest = ''] = request.url.match(/^\/iiif\/([23])\/([^/?]+)(\/[^?]*)?/) ?? [];
    if (!id) return reply.writeHead(404).end();
    const source = rest && await file(decodeURIComponent(id));
    const base = `${headers['x-forwarded-proto'] ?? 'http'}://${headers['x-forwarded-host'] ?? headers.host}`;
    const url = `${base}/iiif/${version}/${headers['x-forwarded-id'] ?? id}${rest}`;
    const result = await new Processor(url, async () => createReadStream(source)).execute();
    reply.setHeader('access-control-allow-origin', '*');
    if (result.type === 'redirect') return reply.writeHead(303, { location: result.location }).end();
    if (result.type === 'error') throw new IIIFError(result.message, result);
    if (result.canonicalLink) reply.setHeader('link', `<${result.canonicalLink}>; rel="canonical"`);
    // info.json says by which name it was asked for; a picture is the same under all of them.
    const what = rest === '/info.json' ? url : source + version + rest;
    const name = `${createHash('sha1').update(what).digest('hex')}.${rest.split('.').pop()}`;
    if (!existsSync(join(folder, name))) writeFileSync(join(folder, name), result.body);
    reply.setHeader('content-type', TYPES[name.split('.').pop()]);
    return send(request, `/${name}`, { root: folder, maxAge: '30d' }).pipe(reply);
  }

  const server = createServer((request, reply) => {
    answer(request, reply).catch((error) => {
      const headers = { 'content-type': 'text/plain', 'access-control-allow-origin': '*' };
      reply.writeHead(error.statusCode ?? 500, headers).end(`${error.message}\n`);
    });
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    async end() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

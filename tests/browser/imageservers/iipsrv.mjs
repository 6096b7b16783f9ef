// IIPImage (Debian's iipimage-server) behind nginx, as libraries run it: nginx asks the canvas service what file an
// identifier is, and hands the request to iipsrv.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';

const IIPSRV = '/usr/lib/iipimage-server/iipsrv.fcgi';
const NGINX = process.env.NGINX ?? '/usr/sbin/nginx';

/** A port that was free a moment ago: neither program says which one it got. */
async function port() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((ready) => server.on('listening', ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** UPSTREAM: a region outside the picture ends iipsrv (SIGSEGV), so that somebody must start it again. */
function keeps(command, args, options) {
  let ended = false;
  let child;
  const start = () => {
    child = spawn(command, args, { stdio: 'ignore', ...options });
    child.on('exit', () => ended || setTimeout(start, 100));
  };
  start();
  return () => new Promise((gone) => {
    ended = true;
    child.on('exit', gone);
    if (child.exitCode !== null || child.signalCode !== null) gone();
    child.kill('SIGTERM');
  });
}

const configuration = (front, back, service, files) => `
daemon off;
pid nginx.pid;
error_log error.log;
events {}
http {
  access_log off;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  map_hash_bucket_size 512;
  variables_hash_bucket_size 512;
  map $http_x_forwarded_proto $proto { default $http_x_forwarded_proto; '' $scheme; }
  map $http_x_forwarded_host $name { default $http_x_forwarded_host; '' $http_host; }
  map $http_x_forwarded_id $shown { default $http_x_forwarded_id; '' $id; }
  # The same files under both of their names; what nobody knows is a file that is not there.
  map $told $file {
    default nothing.tif;
${files.map(({ url, base64, name }) => `    '${url}' ${name};\n    '${base64}' ${name};`).join('\n')}
  }
  server {
    listen 127.0.0.1:${front};
    set $told '';
    add_header Access-Control-Allow-Origin * always;
    # iipsrv's own redirect would name the file.
    location ~ "^/iiif/2/(?<id>[^/]+)$" { return 303 $proto://$name/iiif/2/$shown/info.json; }
    location ~ "^/iiif/2/(?<id>[0-9a-f]{8}-[0-9a-f-]{27})(?<rest>/.*)$" {
      proxy_pass ${service}/iiif-service/resources/$id/redirect;
      proxy_set_header Host resources;
      proxy_method GET;
      proxy_intercept_errors on;
      error_page 301 = @picture;
      error_page 404 = @nothing;
    }
    location @picture { set $told $upstream_http_location; include pictures; }
    location @nothing { include pictures; }
    location ~ "^/iiif/2/(?<id>[^/]+)(?<rest>/.*)$" { set $told $id; include pictures; }
  }
}
`;
const pictures = (back) => `
fastcgi_pass 127.0.0.1:${back};
fastcgi_param REQUEST_METHOD $request_method;
fastcgi_param SERVER_PROTOCOL $server_protocol;
fastcgi_param QUERY_STRING '';
fastcgi_param REQUEST_URI /iiif/2/$file$rest;
fastcgi_param HTTP_HOST $http_host;
fastcgi_param HTTP_X_IIIF_ID $proto://$name/iiif/2/$shown;
fastcgi_param HTTP_IF_MODIFIED_SINCE $http_if_modified_since if_not_empty;
# iipsrv says it for info.json and errors, but not for pictures.
fastcgi_hide_header Access-Control-Allow-Origin;
`;

/** Starts both over the testbed's pictures, as tiled pyramids. */
export async function iipsrv(bed, pages) {
  const folder = mkdtempSync(join(tmpdir(), 'iiif-mender-iipsrv-'));
  const files = [];
  for (const { base64, file: url } of pages) {
    const name = `${files.length}.tif`;
    const jpeg = await (await fetch(`${bed.images}/iiif/2/${base64}/full/full/0/default.jpg`)).arrayBuffer();
    await sharp(Buffer.from(jpeg))
      .tiff({ tile: true, pyramid: true, tileWidth: 256, tileHeight: 256, compression: 'jpeg', quality: 95 })
      .toFile(join(folder, name));
    files.push({ url, base64, name });
  }
  const [front, back] = [await port(), await port()];
  writeFileSync(join(folder, 'nginx.conf'), configuration(front, back, bed.service, files));
  writeFileSync(join(folder, 'pictures'), pictures(back));
  const env = { FILESYSTEM_PREFIX: `${folder}/`, URI_MAP: 'iiif/2=>IIIF', ALLOW_UPSCALING: '0' };
  const ends = [
    keeps(IIPSRV, ['--bind', `127.0.0.1:${back}`], { env }),
    keeps(NGINX, ['-p', folder, '-c', 'nginx.conf'], {}),
  ];
  const url = `http://127.0.0.1:${front}`;
  const until = Date.now() + 30_000;
  while (!(await fetch(`${url}/iiif/2/${pages[0].base64}/info.json`).catch(() => ({}))).ok) {
    if (Date.now() > until) throw new Error('nginx and iipsrv do not answer');
    await new Promise((soon) => setTimeout(soon, 100));
  }
  return {
    url,
    async end() {
      await Promise.all(ends.map((end) => end()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

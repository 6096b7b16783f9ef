// The world of a journey: the testbed, the real iiif-mender before it, and chromium.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const programs = process.env.PROGRAMS ?? join(root, 'target', 'debug');

// Two ways to stand before an image server, and one to stand aside.
export const MODES = {
  // As the public server: manifests name https://api.library.tamu.edu, and so does the browser (TLS, HTTP/2).
  'same name': { publicBase: 'https://api.library.tamu.edu', port: 443 },
  // Beside it: manifests name one host, viewers use another (HTTP/1.1).
  'another name': {
    publicBase: 'https://api.library.tamu.edu', name: 'http://iiif.example.edu', port: 80,
    rewrite: '[rewrite]\npublic_url = "http://iiif.example.edu"\n',
  },
  // In the same place, but it heals nothing: what readers see without it.
  'not healing': { publicBase: 'https://api.library.tamu.edu', port: 443, heals: false },
};

/** Starts a program and waits for the lines that `wanted` names; gives what its patterns caught. */
async function started(command, args, wanted, stream, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  const said = [];
  const caught = {};
  for (const other of [child.stdout, child.stderr]) {
    if (other !== child[stream]) other.on('data', (data) => said.push(String(data)));
  }
  const lines = createInterface({ input: child[stream] });
  await new Promise((ready, failed) => {
    lines.on('line', (line) => {
      said.push(line);
      for (const [name, pattern] of Object.entries(wanted)) caught[name] ??= line.match(pattern)?.[1];
      if (Object.keys(wanted).every((name) => caught[name])) ready();
    });
    child.on('error', failed);
    child.on('exit', (code) => failed(new Error(`${command} ended with ${code}:\n${said.join('\n')}`)));
  });
  const end = () => new Promise((ended) => {
    child.removeAllListeners('exit');
    child.on('exit', ended);
    if (child.exitCode !== null) ended();
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), 5000).unref();
  });
  return { ...caught, said, end };
}

function configuration(mode, bed, images, folder) {
  const tls = mode.publicBase.startsWith('https') && !mode.name;
  if (tls) {
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
      '-days', '30', '-subj', '/CN=api.library.tamu.edu', '-addext', 'subjectAltName=DNS:api.library.tamu.edu',
      '-keyout', 'server.key', '-out', 'server.pem'], { cwd: folder, stdio: 'ignore' });
  }
  return `
[server]
listen = "127.0.0.1:0"
public_hosts = ["api.library.tamu.edu"]
drain = "1s"
${tls ? 'tls = { cert = "server.pem", key = "server.key" }' : ''}
[admin]
listen = "127.0.0.1:0"
${mode.token ? 'token_file = "token"' : ''}
${['/iiif/2/', '/iiif/3/'].map((prefix) => `[[routes]]
prefix = "${prefix}"
upstream = "${images}${prefix}"
kind = "image"
`).join('')}[[routes]]
prefix = "/iiif-service/"
upstream = "${bed.service}/iiif-service/"
kind = "presentation"
[index]
path = "index.sqlite3"
[[index.sources]]
path = "manifests"
[log]
format = "json"
${mode.rewrite ?? ''}
[cache]
memory = 0
[heal]
enabled = ${mode.heals !== false}
# Here the same image expires once a second; in life between two expiries lie hours.
cooldown = "1ms"
# Longer than a viewer waits for a tile: a machine that is busy with other tests is no fault of the proxy.
wait = "60s"
${mode.config ?? ''}`;
}

/**
 * Everything that runs in one mode over these holdings (`['--book', 'obj/book:30']`). `config` is laid at the end of the
 * configuration, within `[heal]`; `token` guards the admin pages; `imageServer` starts another image server than the
 * testbed's over the same pages.
 */
export async function world(modeName, holdings, { config = '', token = '', imageServer } = {}) {
  const mode = { ...MODES[modeName], config, token };
  const folder = mkdtempSync(join(tmpdir(), 'iiif-mender-viewers-'));
  const address = /(http:\/\/\S+)/.source;
  const bed = await started(join(programs, 'iiif-mender-testbed'),
    ['--public-base', mode.publicBase, '--manifests', join(folder, 'manifests'), ...holdings],
    { images: new RegExp(`image server +${address}`), service: new RegExp(`canvas service +${address}`),
      control: new RegExp(`switches +${address}`) }, 'stdout');
  const { pages } = await (await fetch(bed.control)).json();
  const images = await imageServer?.(bed, pages);
  if (token) writeFileSync(join(folder, 'token'), token);
  writeFileSync(join(folder, 'config.toml'), configuration(mode, bed, images?.url ?? bed.images, folder));
  const mender = await started(join(programs, 'iiif-mender'), ['serve'],
    { address: /"message":"serving".*"address":"([^"]+)"|"address":"([^"]+)".*"message":"serving"/,
      admin: /"message":"admin pages[^"]*".*"address":"([^"]+)"/ }, 'stderr', { cwd: folder });
  const name = mode.name ?? mode.publicBase;
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--ignore-certificate-errors',
      `--host-resolver-rules=MAP ${new URL(name).hostname}:${mode.port} ${mender.address}`],
  });
  const it = {
    modeName, bed, mender, browser, name, images, pages,
    /** Flips a switch of the testbed; gives its state. */
    async bedDoes(what, value = '') {
      const answer = await fetch(`${bed.control}/${what}${value === '' ? '' : `?${encodeURIComponent(value)}`}`, { method: 'POST' });
      if (!answer.ok) throw new Error(`the testbed has no switch ${what}`);
      return answer.json();
    },
    async state() {
      return (await fetch(bed.control)).json();
    },
    async gauge(name) {
      const scrape = await (await fetch(`http://${mender.admin}/metrics`, { headers: { authorization: `Bearer ${token}` } })).text();
      return Number(scrape.match(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)`, 'm'))?.[1] ?? 0);
    },
    /** How many images the index knows. */
    indexed: () => it.gauge('iiif_mender_index_images'),
    /** Heals under way. */
    heals: () => it.gauge('iiif_mender_flights'),
    async ends() {
      await browser.close();
      await mender.end();
      await images?.end();
      await bed.end();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  const deadline = Date.now() + 30_000;
  while (await it.indexed() < pages.length) {
    if (Date.now() > deadline) throw new Error(`only ${await it.indexed()} of ${pages.length} images were indexed:\n${mender.said.join('\n')}`);
    await new Promise((soon) => setTimeout(soon, 50));
  }
  return it;
}

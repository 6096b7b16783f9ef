// The viewers as their makers publish them on npm: built, pinned, and checked. Only the packages themselves are fetched,
// not what they were built from, which is 900 MB.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '.bundles');

const PINNED = {
  'openseadragon@6.1.1': 'g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrlYWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw==',
  'mirador@4.0.0': 'uWsE9e2oqSc/lUu+vVwDGhTsycuhGsfZ2KfX6CLfXiT3wgGy6qT9+q5M3V9Zz72hkdIgsJugKesaowmRtYmvrA==',
  'universalviewer@4.4.0': '9OVs6uCzeQYw50jg8k2vEGq6hQFu7kEv9OOAlmqVH9duhrpg1xlIqcMIb2rhNQnAxTQd3R13gxJze9UYkiwdzg==',
  '@samvera/clover-iiif@3.3.8': 'l28GoZK7qD402LXW/JpZy9FX33hgX0JFNRpcdR6DJhwus6m4WRT9SOPdMSwTDW+w33hWbIyRM2wWcJ4D141JlA==',
  'tify@0.35.0': 'fIEtR4XMoqIif+ksLaxWLjZb4yBsYddfKzr/nRnK0QSj455sf6DuYYaFL4YW0ZSZq9Oy8w4N7G7WjRaTcy+eAg==',
};

/** Fetches what is not there yet; gives the folder with one subfolder per viewer, named without scope and version. */
export function bundles() {
  mkdirSync(folder, { recursive: true });
  for (const [spec, integrity] of Object.entries(PINNED)) {
    const name = spec.slice(0, spec.lastIndexOf('@')).split('/').pop();
    const place = join(folder, name);
    const mark = join(place, 'package.json');
    if (existsSync(mark) && spec.endsWith(`@${JSON.parse(readFileSync(mark)).version}`)) continue;
    const packed = execFileSync('npm', ['pack', '--silent', '--ignore-scripts', spec], { cwd: folder, encoding: 'utf8' });
    const file = join(folder, packed.trim().split('\n').pop());
    const found = createHash('sha512').update(readFileSync(file)).digest('base64');
    if (found !== integrity) throw new Error(`${spec} is not what was pinned: sha512-${found}`);
    const fresh = `${place}.new`;
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh);
    execFileSync('tar', ['-xzf', file, '-C', fresh, '--strip-components=1']);
    rmSync(place, { recursive: true, force: true });
    renameSync(fresh, place);
    rmSync(file);
  }
  return folder;
}

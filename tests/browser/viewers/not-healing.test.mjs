// The same journeys where nothing heals: they must fail, or they prove nothing.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TROUBLED, deadService, expired, library, open, sees } from './reading.mjs';
import { VIEWERS } from './viewers.mjs';

/** Page 1 is not seen, and the network log says why. */
async function seesNothing(it, viewer, status, manifest) {
  const { tab, troubles, close } = await open(it, viewer, 'obj/book', manifest);
  try {
    await assert.rejects(sees(it, viewer, tab, 1, 4));
    assert.ok(troubles.some((trouble) => trouble.startsWith(status)), `no ${status} in the network log: ${troubles}`);
  } finally {
    await close();
  }
}

describe('not healing', () => {
  let it;
  before(async () => { it = await library('not healing', TROUBLED.holdings, TROUBLED); });
  after(() => it?.ends());

  describe('an expired book', { concurrency: true }, () => {
    before(() => expired(it, 'obj/book'));
    for (const viewer of VIEWERS) {
      test(`${viewer.name} sees nothing where nothing heals`, () => seesNothing(it, viewer, '404'));
    }
  });

  describe('a canvas service that is down', { concurrency: true }, () => {
    let manifest;
    before(async () => { manifest = await deadService(it, 'obj/book'); });
    for (const viewer of VIEWERS) {
      test(`${viewer.name} sees nothing without the service`, () => seesNothing(it, viewer, '500', manifest));
    }
  });
});

// An OpenID Connect provider for the promise `oidc`, on loopback: provider.mjs PORT PEOPLE, with the
// module's place in OIDC_PROVIDER. PEOPLE is a JSON file of who there is and of their claims, read for
// each sign-in. The browser says in a cookie who it is, and is believed. Each start has another key.
// GATE, a file, says how it behaves: "away" closes each connection, "hold" lets who redeems something
// wait until the gate says something else, and "lose" does what is asked and gives no answer. Each who
// redeems something is a letter in the file SEEN.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const { default: Provider } = await import(process.env.OIDC_PROVIDER);
const [port, people, gate, seen] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), kid: randomBytes(8).toString('hex'), use: 'sig' };

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'atoll',
    client_secret: process.env.OIDC_SECRET,
    redirect_uris: [process.env.OIDC_BACK],
    grant_types: ['authorization_code', 'refresh_token'],
  }],
  jwks: { keys: [key] },
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'email', 'groups', 'offline_access'],
  rotateRefreshToken: true,
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  async findAccount(_, id) {
    const claims = JSON.parse(readFileSync(people, 'utf8'))[id];
    return claims && { accountId: id, claims: async () => ({ sub: id, ...claims }) };
  },
  async loadExistingGrant({ oidc }) {
    const grant = new provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope('openid profile email groups offline_access');
    await grant.save();
    return grant;
  },
});

const answer = provider.callback();
const says = () => readFileSync(gate, 'utf8');
const soon = () => new Promise((done) => setTimeout(done, 20));
createServer(async (request, response) => {
  if (says() === 'away') return request.socket.destroy();
  if (request.url === '/token') {
    appendFileSync(seen, 't');
    const lost = says() === 'lose';
    while (says() === 'hold' && !request.socket.destroyed) await soon();
    if (request.socket.destroyed) return undefined;
    if (lost) Object.assign(response, { write: () => true, end: () => response });
  }
  if (!request.url.startsWith('/interaction/')) return answer(request, response);
  const person = /person=([a-z]+)/.exec(request.headers.cookie ?? '')?.[1];
  const login = { accountId: person };
  const consent = {};
  await provider.interactionFinished(request, response, { login, consent }, { mergeWithLastSubmission: false });
}).listen(Number(port), '127.0.0.1', () => console.log('ready'));

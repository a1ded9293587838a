// The original, npm's lucia over its adapter for sessions in Redis: as bench/worker.py does it, with the same loop.
// node lucia.mjs URL
import { redis as redisSessions } from "@lucia-auth/adapter-session-redis";
import { strict as assert } from "node:assert";
import { createInterface } from "node:readline";
import { createClient } from "redis";
import { lucia } from "lucia";

const HOUR = 3_600_000;
const PREPARERS = 64;
const SESSIONS_EACH = 4;

const users = () => ({
	getUser: async (id) => ({ id }),
	setUser: async () => {},
	updateUser: async () => {},
	deleteUser: async () => {},
	getKey: async () => null,
	getKeysByUserId: async () => [],
	setKey: async () => {},
	updateKey: async () => {},
	deleteKey: async () => {},
	deleteKeysByUserId: async () => {}
});

const [url] = process.argv.slice(2);
const client = createClient({ url });
await client.connect();
const authWith = (activePeriod) =>
	lucia({ env: "DEV", adapter: { user: users, session: redisSessions(client) }, sessionExpiresIn: { activePeriod, idlePeriod: HOUR } });
const auth = authWith(HOUR);
const hasty = authWith(-1); // whose sessions are due for renewal at once

const creating = (maker) => async (userId) => (await maker.createSession({ userId, attributes: {} })).sessionId;
const calls = {
	create: creating(auth),
	again: (id) => auth.validateSession(id),
	first: (id) => auth.validateSession(id),
	renew: (id) => auth.validateSession(id),
	revoke: (id) => auth.invalidateSession(id)
};

const drive = async (call, count, argument, callers) => {
	const answers = [];
	let next = 0;
	const work = async () => {
		while (next < count) answers.push(await call(argument(next++)));
	};
	const begin = performance.now();
	await Promise.all(Array.from({ length: callers }, work));
	return { seconds: (performance.now() - begin) / 1000, answers };
};
const userIds = (count) => (number) => (number % Math.ceil(count / SESSIONS_EACH)).toString(16).padStart(32, "0");
const created = async (maker, count) => (await drive(creating(maker), count, userIds(count), PREPARERS)).answers;
const userOf = async (id) => {
	try {
		return (await auth.validateSession(id)).user.userId;
	} catch (error) {
		assert.equal(error.message, "AUTH_INVALID_SESSION_ID");
		return null;
	}
};

let pool = [];
let ready = [];
const methods = {
	check: async () => {
		const [alice, bob] = [0, 1].map(userIds(8));
		const id = await calls.create(alice);
		assert.equal(await userOf(id), alice);
		assert.equal(await userOf(id.slice(0, -1) + (id.endsWith("a") ? "b" : "a")), null);
		await calls.revoke(id);
		assert.equal(await userOf(id), null);
		const due = await creating(hasty)(alice);
		const renewed = await calls.renew(due);
		assert.equal(renewed.fresh, true);
		assert.equal(await userOf(renewed.sessionId), alice);
		const ids = await Promise.all([bob, bob, bob].map(calls.create));
		await auth.invalidateAllUserSessions(bob);
		assert.deepEqual(await Promise.all(ids.map(userOf)), [null, null, null]);
		return Object.keys(calls);
	},
	prepare: async (operation, count) => {
		if (operation === "again") pool = await created(auth, count);
		else if (operation === "create") ready = Array.from({ length: count }, (_, number) => userIds(count)(number));
		else ready = await created(operation === "renew" ? hasty : auth, count);
	},
	run: async (operation, callers, count) => {
		const given = operation === "again" ? pool : ready;
		const { seconds, answers } = await drive(calls[operation], count, (number) => given[number % given.length], callers);
		assert.equal(answers.length, count);
		return seconds;
	},
	create_all: async (count) => void (await drive(calls.create, count, () => "u1", PREPARERS)),
	revoke_all: async () => (await drive((userId) => auth.invalidateAllUserSessions(userId), 1, () => "u1", 1)).seconds
};

for await (const line of createInterface({ input: process.stdin })) {
	const [method, ...parameters] = JSON.parse(line);
	let answer;
	try {
		answer = { result: (await methods[method](...parameters)) ?? null };
	} catch (error) {
		answer = { error: error.stack };
	}
	console.log(JSON.stringify(answer));
}
await client.quit();

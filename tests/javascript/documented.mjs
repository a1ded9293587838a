// What the documentation of Lucia's Redis adapter 1.1.0 describes: the default layout, with a
// string for each session and a list for each user.
import { randomBytes } from "node:crypto";

const newId = () => randomBytes(20).toString("hex");

export const documented = (client, activePeriod) => {
	const sessionKey = (id) => `session:${id}`;
	const userKey = (userId) => `userSession:${userId}`;
	const stored = async (id) => JSON.parse((await client.get(sessionKey(id))) ?? "null");
	const read = async (id) => {
		const session = await stored(id);
		if (session === null || session.idle_expires < Date.now()) {
			throw new Error("AUTH_INVALID_SESSION_ID");
		}
		return session;
	};
	// An absolute time as a TTL, as in Lucia JS: the key lives for 57 years.
	const write = (session) =>
		client.set(sessionKey(session.id), JSON.stringify(session), {
			EX: Math.floor(session.idle_expires / 1000)
		});
	const store = async (session) => {
		await Promise.all([client.lPush(userKey(session.user_id), session.id), write(session)]);
		return session.id;
	};
	const made = (userId, attributes) => {
		const active_expires = Date.now() + activePeriod;
		const idle_expires = active_expires + 1000 * 60 * 60;
		return { id: newId(), user_id: userId, active_expires, idle_expires, ...attributes };
	};
	const create = (userId, attributes) => store(made(userId, attributes));
	return {
		create,
		// A login sends its two commands at once. Here each is a call of its own, so that tests can
		// do something between them.
		beginCreate: async (userId) => {
			const session = made(userId);
			await client.lPush(userKey(userId), session.id);
			return session;
		},
		endCreate: write,
		read,
		list: async (userId) => {
			const ids = await client.lRange(userKey(userId), 0, -1);
			const sessions = await Promise.all(ids.map(stored));
			return sessions
				.filter((session) => session !== null && session.idle_expires >= Date.now())
				.map((session) => session.id);
		},
		renew: async (id) => create((await read(id)).user_id),
		end: async (id) => {
			const session = await stored(id);
			if (session === null) return;
			await Promise.all([
				client.del(sessionKey(id)),
				client.lRem(userKey(session.user_id), 1, id)
			]);
		},
		endAll: async (userId) => {
			const ids = await client.lRange(userKey(userId), 0, -1);
			await Promise.all([
				...ids.map((id) => client.del(sessionKey(id))),
				client.del(userKey(userId))
			]);
		}
	};
};

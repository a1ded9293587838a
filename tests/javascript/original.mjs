// Lucia 2 with its Redis adapter for sessions: layout lucia-v2. Every user id exists.
import { redis as redisSessions } from "@lucia-auth/adapter-session-redis";
import { lucia } from "lucia";

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

export const original = (client, activePeriod) => {
	const auth = lucia({
		env: "DEV",
		adapter: { user: users, session: redisSessions(client) },
		sessionExpiresIn: { activePeriod, idlePeriod: 1000 * 60 * 60 },
		getSessionAttributes: (session) => ({ stored: session })
	});
	return {
		create: async (userId, attributes) => {
			const session = await auth.createSession({ userId, attributes });
			return session.sessionId;
		},
		read: async (id) => (await auth.getSession(id)).stored,
		list: async (userId) => {
			const sessions = await auth.getAllUserSessions(userId);
			return sessions.map((session) => session.sessionId);
		},
		renew: async (id) => (await auth.validateSession(id)).sessionId,
		end: async (id) => auth.invalidateSession(id),
		endAll: async (userId) => auth.invalidateAllUserSessions(userId)
	};
};

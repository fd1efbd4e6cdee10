/* What the guest answers, and to whom: one loop over all its sockets. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

#define MAX_FDS 256

static struct pollfd watched[MAX_FDS];
static enum role roles[MAX_FDS];
static int watched_count;

void watch(int fd, enum role role)
{
	if (fd < 0 || watched_count == MAX_FDS) {
		close(fd);
		return;
	}
	watched[watched_count] = (struct pollfd){.fd = fd, .events = POLLIN};
	roles[watched_count++] = role;
}

/* One socket for both families; an IPv4 peer shows as ::ffff:a.b.c.d. */
void serve(int type, int protocol, int port, enum role role)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int on = 1, off = 0, fd = socket(AF_INET6, type | SOCK_CLOEXEC, protocol);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any))
		say("init: port %d: %s\n", port, strerror(errno));
	if (role != DATAGRAM && listen(fd, 64))
		say("init: port %d: %s\n", port, strerror(errno));
	watch(fd, role);
}

static void format_peer(const struct sockaddr_in6 *peer, char *text, size_t size)
{
	char address[INET6_ADDRSTRLEN];
	int port = ntohs(peer->sin6_port);
	if (IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr)) {
		inet_ntop(AF_INET, &peer->sin6_addr.s6_addr[12], address, sizeof address);
		snprintf(text, size, "%s:%d", address, port);
	} else {
		inet_ntop(AF_INET6, &peer->sin6_addr, address, sizeof address);
		snprintf(text, size, "[%s]:%d", address, port);
	}
}

static void accept_connection(int listener, enum role role)
{
	struct sockaddr_in6 peer;
	socklen_t size = sizeof peer;
	char peer_text[64], answer[400];
	int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (role == TCP_ECHO || role == TCP_CONTROL) {
		watch(fd, role == TCP_ECHO ? ECHO : CONTROL);
		return;
	}
	format_peer(&peer, peer_text, sizeof peer_text);
	int length = snprintf(answer, sizeof answer, "%s tcp %s\n", guest_name, peer_text);
	if (write(fd, answer, length) < 0) { /* the client has gone */ }
	/* Closing with unread input would reset the connection and could take the answer with it. */
	shutdown(fd, SHUT_WR);
	watch(fd, DRAIN);
}

/* UDP, and SCTP's one-to-many style, where an association comes and goes with its messages. */
static void answer_message(int fd, const char *protocol)
{
	static char payload[2048], answer[2600];
	struct sockaddr_in6 peer;
	socklen_t size = sizeof peer;
	char peer_text[64];
	ssize_t length = recvfrom(fd, payload, sizeof payload - 1, 0, (struct sockaddr *)&peer, &size);
	if (length < 0)
		return;
	payload[length] = 0;
	format_peer(&peer, peer_text, sizeof peer_text);
	int total = snprintf(answer, sizeof answer, "%s %s %s %s", guest_name, protocol, peer_text, payload);
	sendto(fd, answer, total, 0, (struct sockaddr *)&peer, size);
}

static void read_connection(int index)
{
	static char buffer[65536];
	int fd = watched[index].fd;
	ssize_t length = read(fd, buffer, sizeof buffer - 1);
	if (length <= 0) {
		close(fd);
		watched[index] = watched[--watched_count];
		roles[index] = roles[watched_count];
		return;
	}
	buffer[length] = 0;
	if (roles[index] == CONTROL)
		control(buffer);
	for (ssize_t sent = 0; roles[index] == ECHO && sent < length;) {
		ssize_t count = send(fd, buffer + sent, length - sent, MSG_NOSIGNAL);
		if (count < 0)
			break;
		sent += count;
	}
}

static void read_button(int fd)
{
	struct input_event event;
	while (read(fd, &event, sizeof event) == sizeof event)
		if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
			power(RB_POWER_OFF);
}

static void handle(int index)
{
	int fd = watched[index].fd;
	switch (roles[index]) {
	case TCP_ANSWER: case TCP_ECHO: case TCP_CONTROL:
		accept_connection(fd, roles[index]);
		break;
	case DATAGRAM:
		answer_message(fd, "udp");
		break;
	case SCTP_MESSAGE:
		answer_message(fd, "sctp");
		break;
	case DRAIN: case ECHO: case CONTROL:
		read_connection(index);
		break;
	case POWER_BUTTON:
		read_button(fd);
		break;
	}
}

void serve_forever(void)
{
	for (;;) {
		poll(watched, watched_count, -1);
		/* Backwards: a closed connection's place is taken by the last one. */
		for (int i = watched_count - 1; i >= 0; i--)
			if (watched[i].revents)
				handle(i);
	}
}

/* What the parts of the guest's init share. */
#ifndef GUEST_H
#define GUEST_H

#include <netinet/in.h>
#include <stddef.h>

#define DEVICE "eth0"

extern char guest_name[256];
extern int is_container;

/* settings.c: the command line, and the kernel's ear */
void load_settings(int argc, char **argv);
int has_setting(const char *name);
void read_setting(const char *name, char *value, size_t size);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void write_text(const char *path, const char *text);

/* network.c: addresses and routes */
void configure_network(void);
void network_down(void);
void set_address4(struct in_addr address, struct in_addr netmask);
void set_gateway4(struct in_addr gateway);

/* dhcp.c: one lease */
void dhcp(void);

/* serve.c: what the guest answers */
enum role { TCP_ANSWER, TCP_ECHO, TCP_CONTROL, DATAGRAM, SCTP_MESSAGE, /* listening */
	    DRAIN, ECHO, CONTROL,					/* accepted */
	    POWER_BUTTON };
void serve(int type, int protocol, int port, enum role role);
void watch(int fd, enum role role);
void serve_forever(void);

/* init.c: what process 1 can do to the machine */
void power(int command);
void control(const char *order);

#endif

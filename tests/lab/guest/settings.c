/* The guest's settings, from the kernel command line or a container's arguments. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

static char settings[4096];
char guest_name[256] = "guest";
int is_container;

void say(const char *format, ...)
{
	char line[512];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	int fd = open(is_container ? "/dev/console" : "/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, line, length) < 0) { /* nobody else to tell */ }
	close(fd);
}

int has_setting(const char *name)
{
	return strstr(settings, name) != NULL;
}

/* Copy the value of "name=value" out of the settings; an empty string when it is not there. */
void read_setting(const char *name, char *value, size_t size)
{
	char *found = strstr(settings, name);
	value[0] = 0;
	if (!found)
		return;
	found += strlen(name);
	size_t length = strcspn(found, " \n");
	if (length >= size)
		length = size - 1;
	memcpy(value, found, length);
	value[length] = 0;
}

void load_settings(int argc, char **argv)
{
	if (is_container) {
		for (int i = 1; i < argc; i++) {
			strncat(settings, argv[i], sizeof settings - strlen(settings) - 1);
			strncat(settings, " ", sizeof settings - strlen(settings) - 1);
		}
		return;
	}
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, settings, sizeof settings - 1);
	settings[length > 0 ? length : 0] = 0;
	close(fd);
}

void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		say("init: %s: %s\n", path, strerror(errno));
	close(fd);
}

/*
 * The only program of dom0's initramfs: loads the modules that its disk needs, and goes on from
 * there. They are in /modules, named so that their alphabetical order is the order to load them in.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(int result, const char *what)
{
	if (!result)
		return;
	fprintf(stderr, "boot: %s: %s\n", what, strerror(errno));
	pause();
}

static void load_modules(void)
{
	struct dirent **found;
	int count = scandir("/modules", &found, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char path[300];
		if (found[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/modules/%s", found[i]->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		check(syscall(SYS_finit_module, fd, "", 0), path);
		close(fd);
	}
}

int main(void)
{
	mkdir("/dev", 0755);
	mkdir("/root", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	load_modules();
	for (int tries = 0; tries < 1000 && access("/dev/vda", F_OK); tries++)
		usleep(10000);
	check(mount("/dev/vda", "/root", "ext4", 0, NULL), "/dev/vda");
	check(mount("/dev", "/root/dev", NULL, MS_MOVE, NULL), "/dev");
	check(chdir("/root"), "/root");
	check(mount(".", "/", NULL, MS_MOVE, NULL), "/");
	check(chroot("."), "chroot");
	execl("/sbin/cgw-lab-init", "init", NULL);
	check(-1, "/sbin/cgw-lab-init");
}

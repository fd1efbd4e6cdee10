# Hands a hook call to the agent: client.pl SOCKET DRIVER GUEST OPERATION SUBOPERATION EXTRA,
# with the guest's XML on stdin. hook_server.py describes the protocol.
#
# It exits with the agent's exit code, and with 75 (EX_TEMPFAIL of sysexits.h) if the agent did not
# answer: then the hook script carries out the call itself.
#
# It is written in Perl because libvirt waits for it: /usr/bin/perl starts in a sixth of the time of
# /usr/bin/python3, and every Debian has it. For the same reason it loads no module, not even
# "strict". The tests check it with "strict" and "warnings".

$SIG{PIPE} = "IGNORE";
$SIG{ALRM} = sub { exit 75 };    # a hung agent accepts connections, but says nothing

my $path    = shift @ARGV;
my $given   = do { local $/; <STDIN> };
my $body    = join("", map { "$_\0" } @ARGV) . ($given // "");
my $message = pack("N/a*", $body);

# A socket that another user has put there is not the agent's.
exit 75 if ((lstat $path)[4] // -1) != $>;

alarm 1;
socket(my $agent, 1, 1, 0) or exit 75;                     # AF_UNIX, SOCK_STREAM
connect($agent, pack("S a*", 1, $path)) or exit 75;
while (length $message) {
    my $sent = syswrite($agent, $message) or exit 75;
    substr($message, 0, $sent) = "";
}

# The connection must stay open in both directions: the agent drops a call whose client has closed
# it. While the agent carries out the calls of others, it says so (\xff). The client then waits on:
# if a hundred guests start at once, the agent is faster than a hundred processes of cgw.
my $answer = "";
until (length $answer) {
    sysread($agent, $answer, 65536) or exit 75;
    $answer =~ s/^\xff+//;
    alarm 1;
}
print STDERR substr($answer, 1), "\n" if length $answer > 1;
exit ord $answer;

; Code that rewrites itself 200,000 times: the immediate of the instruction that runs next, in the same block.
%include "rom.inc"
main:   mov ecx, 200000
        xor ebx, ebx
.loop:  mov [.patch + 1], ecx
.patch: mov eax, 0
        cmp eax, ecx
        jne .stale
        add ebx, eax
        loop .loop
        cmp ebx, 200000 * 200001 / 2 & 0xffffffff
        jne .stale
        say "went on"
        ret
.stale: say "stale code ran"
        ret
%include "end.inc"

; Runs pseudo-random bytes at ring 0 (MODE 16 or 32): each exception goes on at a new place, ROUNDS times. The bytes may
; do anything to the machine, so nothing is expected but that the VMM survives.
%include "rom.inc"
BYTES   equ FREE
main:   say "before"
        mov edi, BYTES
        mov ecx, 0x40000
        mov eax, SEED
.fill:  call random
        stosd
        loop .fill
        mov [state], eax
        jmp again

random: imul eax, eax, 1664525
        add eax, 1013904223
        ret

again:  mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, STACK
        dec dword [rounds]
        jz finish
        mov eax, [state]
        call random
        mov [state], eax
        shr eax, 10
        and eax, 0xfffff
        expect again
%if MODE == 32
        add eax, BYTES
        call eax                                ; a RET of the garbage's own comes back
        jmp again
%else
        mov esi, BYTES                          ; 16 bit: a fresh copy below 1 MiB, at 20000h
        lea esi, [esi + eax]
        and esi, ~0xffff
        mov edi, 0x20000
        mov ecx, 0x4000
        rep movsd
        and eax, 0xffff
        mov [target], eax
        mov dword [gdt + 0x30], 0x0000ffff
        mov dword [gdt + 0x34], 0x00009b02
        jmp far [target]
target: dd 0
        dw 0x30
%endif
state:  dd 0
rounds: dd ROUNDS
%include "end.inc"
